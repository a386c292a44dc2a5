//! Consistent hashing.

use std::sync::Arc;

use super::key::{hash, mix};
use super::{Candidates, Chooser, Strategy};
use crate::shard::{ShardedRng, scale};

/// The number of probes per key; the point nearest to any of them is used (Appleton and O'Reilly,
/// "Multi-probe consistent hashing", 2015). It balances as well as hundreds of points per endpoint,
/// with far fewer, so ten thousand endpoints are prepared quickly.
const PROBES: u64 = 16;

/// How many endpoints are sampled for the average load.
const SAMPLE: usize = 32;

/// Sends all requests with the same [`Key`](super::Key) to the same endpoint; when endpoints are added
/// or removed, only their keys move.
///
/// An endpoint with a quarter more requests in flight than the average passes keys on to the next one
/// on the ring (Mirrokni, Thorup and Zadimoghaddam, "Consistent hashing with bounded loads", 2017).
/// The average is taken over at most 32 endpoints. A request without a key goes to a random endpoint.
#[derive(Debug)]
pub struct ConsistentHash {
    rng: Arc<ShardedRng>,
    bound: f64,
}

impl ConsistentHash {
    /// With a bound of 1.25 times the average load.
    pub fn new() -> Self {
        Self {
            rng: Arc::new(ShardedRng::new()),
            bound: 1.25,
        }
    }

    /// Sets the bound, as a multiple of the average load. [`f64::INFINITY`] never passes a key on; a
    /// bound below 1 counts as 1.
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
        let ring = HashRing::new(candidates);
        let (rng, bound) = (Arc::clone(&self.rng), self.bound);
        Box::new(move |candidates, key| {
            let key = key.map_or_else(|| rng.next_u64(), |key| key.0);
            let first = ring.nearest(key);
            ring.from(first)
                .take(SAMPLE)
                .find(|&index| is_within_bound(candidates, index, bound))
                .unwrap_or_else(|| ring.points[first].1 as usize)
        })
    }
}

fn is_within_bound(candidates: &Candidates, index: usize, bound: f64) -> bool {
    let in_flight = candidates.in_flight(index);
    if in_flight == 0 {
        return true;
    }
    let sampled = candidates.len().min(SAMPLE);
    let step = candidates.len() / sampled;
    let sample = (0..sampled).map(|offset| (index + offset * step) % candidates.len());
    let (load, weight) = sample.fold((0, 0.0), |(load, weight), index| {
        let more = candidates.in_flight(index);
        (load + more, weight + candidates.weight(index))
    });
    // Its share of the load, including this request.
    let share = (load + 1) as f64 * candidates.weight(index) / weight;
    (in_flight + 1) as f64 <= (bound * share).ceil()
}

/// The number of points of an endpoint with average weight. Keys move when it changes, so it is the
/// same for services of similar size. Few points make weights coarse, many take long to prepare.
fn points_per_endpoint(endpoints: usize) -> f64 {
    match endpoints {
        ..=256 => 64.0,
        257..=2_048 => 16.0,
        _ => 4.0,
    }
}

/// Points on a ring, sorted by position, each with the index of its endpoint.
#[derive(Debug)]
struct HashRing {
    points: Box<[(u64, u32)]>,
    /// The ring is divided into as many buckets as there are points: the index of the first point of
    /// each bucket, and the end.
    buckets: Box<[u32]>,
}

impl HashRing {
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
        // Positions are spread evenly, so most of the sorting is done by a bucket sort.
        let mut buckets = vec![0_u32; points.len() + 1];
        for (position, _) in &points {
            buckets[scale(*position, points.len()) + 1] += 1;
        }
        for bucket in 1..buckets.len() {
            buckets[bucket] += buckets[bucket - 1];
        }
        let (mut next, mut sorted) = (buckets.clone(), points.clone());
        for point in &points {
            let slot = &mut next[scale(point.0, points.len())];
            sorted[*slot as usize] = *point;
            *slot += 1;
        }
        for bucket in buckets.windows(2) {
            sorted[bucket[0] as usize..bucket[1] as usize].sort_unstable();
        }
        Self {
            points: sorted.into(),
            buckets: buckets.into(),
        }
    }

    /// The point with the shortest distance after one of the key's probes.
    fn nearest(&self, key: u64) -> usize {
        let probes = (0..PROBES).map(|probe| {
            let position = mix(key ^ probe.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let point = self.after(position);
            (self.points[point].0.wrapping_sub(position), point)
        });
        probes.min().map_or(0, |(_, point)| point)
    }

    fn after(&self, position: u64) -> usize {
        let mut point = self.buckets[scale(position, self.points.len())] as usize;
        while self.points.get(point).is_some_and(|(at, _)| *at < position) {
            point += 1;
        }
        if point == self.points.len() { 0 } else { point }
    }

    /// The endpoints from a point on, once around the ring.
    fn from(&self, first: usize) -> impl Iterator<Item = usize> {
        let points = self.points[first..].iter().chain(&self.points[..first]);
        points.map(|(_, index)| *index as usize)
    }
}
