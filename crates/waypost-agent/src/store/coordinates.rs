//! Where nodes are, as they say themselves.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::{Changes, State, Topic, fold};

/// A place in the space of round-trip times, in seconds (Vivaldi, as Serf computes it).
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct Coordinate {
    pub vec: Vec<f64>,
    pub error: f64,
    pub adjustment: f64,
    pub height: f64,
}

/// The last word of each node, by its folded name and the segment of the network.
#[derive(Debug, Default)]
pub(crate) struct Coordinates {
    index: u64,
    places: BTreeMap<(String, String), (String, Coordinate)>,
}

impl Coordinate {
    pub(crate) const DIMENSIONS: usize = 8;

    /// Where every node starts.
    pub(crate) fn origin() -> Self {
        Self {
            vec: vec![0.0; Self::DIMENSIONS],
            error: 1.5,
            adjustment: 0.0,
            height: 1e-5,
        }
    }

    /// Whether it can be compared with others.
    pub(crate) fn is_compatible(&self) -> bool {
        let mut numbers = self.vec.iter();
        let rest = [self.error, self.adjustment, self.height];
        self.vec.len() == Self::DIMENSIONS
            && numbers.all(|number| number.is_finite())
            && rest.iter().all(|number| number.is_finite())
    }

    /// The round-trip time that can be expected between the two.
    fn distance_to(&self, other: &Self) -> Duration {
        let between = self.vec.iter().zip(&other.vec);
        let square: f64 = between.map(|(one, other)| (one - other).powi(2)).sum();
        let distance = square.sqrt() + self.height + other.height;
        let adjusted = distance + self.adjustment + other.adjustment;
        let seconds = if adjusted > 0.0 { adjusted } else { distance };
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

/// Where one node is, by segment of the network.
type Places<'a> = BTreeMap<&'a str, &'a Coordinate>;

/// Nodes are measured in one segment: the only one that a node is in, or else the nameless one.
fn distance(here: &Places<'_>, there: &Places<'_>) -> Option<Duration> {
    let only = |places: &Places<'_>| match places.len() {
        1 => places.keys().next().map(|segment| (*segment).to_owned()),
        _ => None,
    };
    let segment = only(there).or_else(|| only(here)).unwrap_or_default();
    let (here, there) = (here.get(segment.as_str())?, there.get(segment.as_str())?);
    Some(here.distance_to(there))
}

impl State {
    /// Notes where a node is. Nothing happens if it is unknown.
    pub(crate) fn locate(
        &mut self,
        node: &str,
        segment: &str,
        coordinate: Coordinate,
        changes: &mut Changes,
    ) {
        let Some((_, node, _)) = self.catalog.node(node) else {
            return;
        };
        let key = (fold(&node.name), segment.to_owned());
        let place = (node.name.clone(), coordinate);
        if self.coordinates.places.get(&key) != Some(&place) {
            self.coordinates.places.insert(key, place);
            self.coordinates.index = changes.index();
            changes.touch(Topic::Coordinates);
        }
    }

    /// Puts first what is nearest to the node `from`, and what is on nodes of which nobody knows
    /// where they are last. The order stays if that is so of `from`.
    pub(crate) fn sort_by_distance<T>(
        &self,
        from: &str,
        things: &mut [T],
        node_of: impl Fn(&T) -> &str,
    ) {
        let here = self.places_of(from);
        if !here.is_empty() {
            things.sort_by_cached_key(|thing| {
                distance(&here, &self.places_of(node_of(thing))).unwrap_or(Duration::MAX)
            });
        }
    }

    fn places_of(&self, node: &str) -> Places<'_> {
        let node = fold(node);
        let places = self
            .coordinates
            .places
            .range((node.clone(), String::new())..);
        let of_node = places.take_while(|((it, _), _)| *it == node);
        of_node
            .map(|((_, segment), (_, place))| (segment.as_str(), place))
            .collect()
    }

    /// The places of nodes that are still there: node, segment and coordinate, in order.
    pub(crate) fn places(&self) -> (u64, impl Iterator<Item = (&str, &str, &Coordinate)>) {
        let index = self.coordinates.index.max(self.catalog.nodes().0);
        let places = self.coordinates.places.iter();
        let there = places.filter(|((node, _), _)| self.catalog.has_node(node));
        let places = there.map(|((_, segment), (node, coordinate))| {
            (node.as_str(), segment.as_str(), coordinate)
        });
        (index, places)
    }
}
