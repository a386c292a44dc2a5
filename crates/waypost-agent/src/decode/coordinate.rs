//! The body of `/v1/coordinate/update`.

use serde::Deserialize;

use crate::store::Coordinate;

/// The network coordinate of a node.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase", deny_unknown_fields)]
pub(crate) struct CoordinateUpdate {
    pub datacenter: String,
    pub node: String,
    pub segment: String,
    #[serde(rename = "Coord")]
    pub coordinate: Option<Coordinate>,
    /// Accepted, and not used: tokens come in a header or in the query.
    #[serde(rename = "Token")]
    _token: String,
}
