//! Network coordinates of nodes, as the nodes report them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::case_folding::fold_case;
use super::catalog::Catalog;
use super::changes::Changes;
use super::watch::Topic;

/// A position in the space of round-trip times, in seconds (Vivaldi, as Serf computes it).
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct Coordinate {
    pub vec: Vec<f64>,
    pub error: f64,
    pub adjustment: f64,
    pub height: f64,
}

/// The last coordinate of each node and network segment.
#[derive(Debug, Default)]
pub(crate) struct Coordinates {
    index: u64,
    /// By case-folded node name and segment.
    rows: BTreeMap<(String, String), CoordinateRow>,
}

#[derive(Debug, PartialEq)]
struct CoordinateRow {
    node: String,
    coordinate: Coordinate,
}

/// The coordinate of a node in one network segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeCoordinate<'a> {
    pub node: &'a str,
    pub segment: &'a str,
    pub coordinate: &'a Coordinate,
}

/// The coordinates of one node by segment.
type BySegment<'a> = BTreeMap<&'a str, &'a Coordinate>;

impl Coordinate {
    pub(crate) const DIMENSIONS: usize = 8;

    /// The coordinate of a node that hasn't measured anything yet.
    pub(crate) fn origin() -> Self {
        Self {
            vec: vec![0.0; Self::DIMENSIONS],
            error: 1.5,
            adjustment: 0.0,
            height: 1e-5,
        }
    }

    /// Whether it can be compared with other coordinates.
    pub(crate) fn is_compatible(&self) -> bool {
        let mut numbers = self.vec.iter();
        let rest = [self.error, self.adjustment, self.height];
        self.vec.len() == Self::DIMENSIONS
            && numbers.all(|number| number.is_finite())
            && rest.iter().all(|number| number.is_finite())
    }

    /// The estimated round-trip time.
    fn distance_to(&self, other: &Self) -> Duration {
        let differences = self.vec.iter().zip(&other.vec);
        let square: f64 = differences.map(|(a, b)| (a - b).powi(2)).sum();
        let distance = square.sqrt() + self.height + other.height;
        let adjusted = distance + self.adjustment + other.adjustment;
        let seconds = if adjusted > 0.0 { adjusted } else { distance };
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }
}

impl Coordinates {
    /// Sets the coordinate of a node. Does nothing if the node isn't in the catalog.
    pub(crate) fn set(
        &mut self,
        node: &str,
        segment: &str,
        coordinate: Coordinate,
        catalog: &Catalog,
        changes: &mut Changes,
    ) {
        let Some((_, node, _)) = catalog.node(node) else {
            return;
        };
        let key = (fold_case(&node.name), segment.to_owned());
        let row = CoordinateRow {
            node: node.name.clone(),
            coordinate,
        };
        if self.rows.get(&key) != Some(&row) {
            self.rows.insert(key, row);
            self.index = changes.index();
            changes.touch(Topic::Coordinates);
        }
    }

    /// The coordinates of the nodes in the catalog, sorted by node and segment, and their index.
    pub(crate) fn list<'a>(
        &'a self,
        catalog: &'a Catalog,
    ) -> (u64, impl Iterator<Item = NodeCoordinate<'a>>) {
        let index = self.index.max(catalog.nodes().0);
        let rows = self.rows.iter();
        let present = rows.filter(|((node, _), _)| catalog.has_node(node));
        let coordinates = present.map(|((_, segment), row)| NodeCoordinate {
            node: &row.node,
            segment,
            coordinate: &row.coordinate,
        });
        (index, coordinates)
    }

    /// Sorts `items` by the distance of their nodes from the node `from`. Items on nodes without a
    /// coordinate come last. The order stays as it is if `from` has no coordinate.
    pub(crate) fn sort_by_distance<T>(
        &self,
        from: &str,
        items: &mut [T],
        node_of: impl Fn(&T) -> &str,
    ) {
        let from = self.of_node(from);
        if !from.is_empty() {
            items.sort_by_cached_key(|item| {
                distance(&from, &self.of_node(node_of(item))).unwrap_or(Duration::MAX)
            });
        }
    }

    fn of_node(&self, node: &str) -> BySegment<'_> {
        let node = fold_case(node);
        let rows = self.rows.range((node.clone(), String::new())..);
        let of_node = rows.take_while(|((key, _), _)| *key == node);
        of_node
            .map(|((_, segment), row)| (segment.as_str(), &row.coordinate))
            .collect()
    }
}

/// The distance in the segment that both nodes share: the only segment of one of them, or else the
/// default segment, which has an empty name.
fn distance(a: &BySegment<'_>, b: &BySegment<'_>) -> Option<Duration> {
    let only = |segments: &BySegment<'_>| match segments.len() {
        1 => segments.keys().next().map(|segment| (*segment).to_owned()),
        _ => None,
    };
    let segment = only(b).or_else(|| only(a)).unwrap_or_default();
    let (a, b) = (a.get(segment.as_str())?, b.get(segment.as_str())?);
    Some(a.distance_to(b))
}
