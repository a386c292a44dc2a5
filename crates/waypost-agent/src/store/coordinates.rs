//! Where nodes are, as they say themselves.

use std::collections::BTreeMap;

use super::{Changes, State, Topic, fold};

/// A place in the space of round-trip times, in seconds (Vivaldi, as Serf computes it).
#[derive(Clone, Debug, PartialEq)]
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
