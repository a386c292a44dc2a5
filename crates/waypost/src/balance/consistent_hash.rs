use std::sync::Arc;

use super::key::{hash, mix};
use super::{Candidates, Chooser, Strategy};
use crate::shard::{Dice, scale};

/// How often a key looks for a point; the nearest of all these looks wins (Appleton and O'Reilly,
/// "Multi-probe consistent hashing", 2015). It does what hundreds of points per endpoint would,
/// with a few, so that a fleet of ten thousand is prepared in a moment.
const LOOKS: u64 = 16;

/// How many endpoints are asked for the average load.
const SAMPLE: usize = 32;

/// Requests of one [`Key`](super::Key) to one endpoint, as long as it is there; when endpoints
/// come or go, only the keys of those move.
///
/// An endpoint that has a quarter more in flight than the average hands keys on to the next one on
/// the circle (Mirrokni, Thorup and Zadimoghaddam, "Consistent hashing with bounded loads", 2017).
/// The average is taken over at most 32 endpoints. A request without a key goes anywhere.
#[derive(Debug)]
pub struct ConsistentHash {
    dice: Arc<Dice>,
    bound: f64,
}

impl ConsistentHash {
    /// With a bound of 1.25 times the average load.
    pub fn new() -> Self {
        Self {
            dice: Arc::new(Dice::new()),
            bound: 1.25,
        }
    }

    /// With another bound; one of [`f64::INFINITY`] never hands a key on.
    ///
    /// What is below 1 counts as 1.
    #[must_use]
    pub fn with_bound(mut self, bound: f64) -> Self {
        self.bound = bound.max(1.0);
        self
    }
}

impl Default for ConsistentHash {
    fn default() -> Self {
        Self::new()
    }
}

impl Strategy for ConsistentHash {
    fn name(&self) -> &'static str {
        "consistent_hash"
    }

    fn prepare(&self, candidates: &Candidates) -> Box<Chooser> {
        let circle = Circle::new(candidates);
        let (dice, bound) = (Arc::clone(&self.dice), self.bound);
        Box::new(move |candidates, key| {
            let key = key.map_or_else(|| dice.roll(), |key| key.0);
            let first = circle.nearest(key);
            circle
                .from(first)
                .take(SAMPLE)
                .find(|&index| has_room(candidates, index, bound))
                .unwrap_or_else(|| circle.points[first].1 as usize)
        })
    }
}

fn has_room(candidates: &Candidates, index: usize, bound: f64) -> bool {
    let in_flight = candidates.in_flight(index);
    if in_flight == 0 {
        return true;
    }
    let sampled = candidates.len().min(SAMPLE);
    let step = candidates.len() / sampled;
    let sample = (0..sampled).map(|place| (index + place * step) % candidates.len());
    let (load, weight) = sample.fold((0, 0.0), |(load, weight), index| {
        let more = candidates.in_flight(index);
        (load + more, weight + candidates.weight(index))
    });
    // Its share of the load with this request.
    let share = (load + 1) as f64 * candidates.weight(index) / weight;
    (in_flight + 1) as f64 <= (bound * share).ceil()
}

/// How many points an endpoint of average weight has: the same for fleets of like size, since keys
/// move when it changes. Few points make weights coarse, many make a large fleet slow to prepare.
fn points_per_endpoint(endpoints: usize) -> f64 {
    match endpoints {
        ..=256 => 64.0,
        257..=2_048 => 16.0,
        _ => 4.0,
    }
}

/// Points in order of their places, each with the index of its endpoint.
#[derive(Debug)]
struct Circle {
    points: Box<[(u64, u32)]>,
    /// Where the points of each part of the circle begin, and the end; as many parts as points.
    parts: Box<[u32]>,
}

impl Circle {
    fn new(candidates: &Candidates) -> Self {
        let count = candidates.len();
        let average = points_per_endpoint(count);
        let total: f64 = (0..count).map(|index| candidates.weight(index)).sum();
        let mut points = Vec::with_capacity((average * count as f64) as usize + count);
        for index in 0..count {
            let share = candidates.weight(index) * count as f64 / total;
            let own = ((average * share).round() as u64).max(1);
            let id = candidates.endpoint(index).instance().id();
            let seed = hash(1, id.as_str().as_bytes());
            points.extend((0..own).map(|point| (mix(seed.wrapping_add(point)), index as u32)));
        }
        // Places are spread evenly, so that sorting them is mostly putting each into its part.
        let mut parts = vec![0_u32; points.len() + 1];
        for (place, _) in &points {
            parts[scale(*place, points.len()) + 1] += 1;
        }
        for part in 1..parts.len() {
            parts[part] += parts[part - 1];
        }
        let (mut next, mut sorted) = (parts.clone(), points.clone());
        for point in &points {
            let slot = &mut next[scale(point.0, points.len())];
            sorted[*slot as usize] = *point;
            *slot += 1;
        }
        for part in parts.windows(2) {
            sorted[part[0] as usize..part[1] as usize].sort_unstable();
        }
        Self {
            points: sorted.into(),
            parts: parts.into(),
        }
    }

    /// The point that lies nearest after one of the key's looks.
    fn nearest(&self, key: u64) -> usize {
        let looks = (0..LOOKS).map(|look| {
            let place = mix(key ^ look.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let point = self.after(place);
            (self.points[point].0.wrapping_sub(place), point)
        });
        looks.min().map_or(0, |(_, point)| point)
    }

    fn after(&self, place: u64) -> usize {
        let mut point = self.parts[scale(place, self.points.len())] as usize;
        while self.points.get(point).is_some_and(|(at, _)| *at < place) {
            point += 1;
        }
        if point == self.points.len() { 0 } else { point }
    }

    /// The endpoints from a point on, once around.
    fn from(&self, first: usize) -> impl Iterator<Item = usize> {
        let points = self.points[first..].iter().chain(&self.points[..first]);
        points.map(|(_, index)| *index as usize)
    }
}
