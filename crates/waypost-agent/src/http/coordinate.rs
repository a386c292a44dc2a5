//! `/v1/coordinate`: the network coordinates that nodes report. The coordinate of this agent's node
//! never changes, because there is no other agent to measure distances to.

use http::Method;
use serde::Serialize;

use super::blocking::{QueryKind, QueryResult};
use super::request::ApiRequest;
use super::response::{ApiError, ApiResponse, ResponseBody};
use super::route::{Handler, Route};
use crate::decode::CoordinateUpdate;
use crate::store::{Coordinate, NodeCoordinate, Topic, fold_case};

pub(super) const ROUTES: &[Route] = &[
    Route::new(
        "/v1/coordinate/datacenters",
        &[(Method::GET, Handler::Sync(datacenters))],
    )
    .without_namespace(),
    Route::new("/v1/coordinate/nodes", &[(Method::GET, read(nodes))]).without_namespace(),
    Route::new("/v1/coordinate/node/", &[(Method::GET, read(node))]).without_namespace(),
    Route::new(
        "/v1/coordinate/update",
        &[(Method::PUT, Handler::Sync(update))],
    )
    .without_namespace(),
];

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct NodeCoordinateView<'a> {
    node: &'a str,
    segment: &'a str,
    coord: CoordinateView<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct CoordinateView<'a> {
    vec: &'a [f64],
    error: f64,
    adjustment: f64,
    height: f64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Datacenter<'a> {
    datacenter: &'a str,
    #[serde(rename = "AreaID")]
    area: &'static str,
    coordinates: [NodeCoordinateView<'a>; 1],
}

const fn read(run: fn(&ApiRequest) -> Result<QueryResult, ApiError>) -> Handler {
    Handler::blocking(QueryKind::Coordinates, |_| Topic::Coordinates, run)
}

fn datacenters(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    let coordinate = NodeCoordinate {
        node: &request.app.node_name,
        segment: "",
        coordinate: &Coordinate::origin(),
    };
    request.json(&[Datacenter {
        datacenter: &request.app.datacenter,
        area: "wan",
        coordinates: [coordinate.into()],
    }])
}

/// The coordinates of all nodes, or of those in one network segment.
fn nodes(request: &ApiRequest) -> Result<QueryResult, ApiError> {
    request.app.store.read(|state| {
        let (index, coordinates) = state.coordinates.list(&state.catalog);
        let matching = coordinates.filter(|it| matches_segment(request, it.segment));
        let views: Vec<_> = matching.map(NodeCoordinateView::from).collect();
        let body = request.json_body(&views)?;
        Ok(QueryResult { index, body })
    })
}

/// The coordinates of a node. Its name is shown as in the request.
fn node(request: &ApiRequest) -> Result<QueryResult, ApiError> {
    let name = fold_case(&request.suffix);
    request.app.store.read(|state| {
        let (index, coordinates) = state.coordinates.list(&state.catalog);
        let matching = coordinates
            .filter(|it| fold_case(it.node) == name && matches_segment(request, it.segment));
        let named = matching.map(|it| NodeCoordinate {
            node: &request.suffix,
            ..it
        });
        let views: Vec<_> = named.map(NodeCoordinateView::from).collect();
        let body = if views.is_empty() {
            ResponseBody::NotFound
        } else {
            request.json_body(&views)?
        };
        Ok(QueryResult { index, body })
    })
}

fn matches_segment(request: &ApiRequest, segment: &str) -> bool {
    !request.query.has("segment") || request.query.get("segment") == segment
}

/// Sets a coordinate at once. Consul batches updates for up to five seconds.
fn update(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    let update: CoordinateUpdate = request.decode()?;
    let datacenter = &update.datacenter;
    if !datacenter.is_empty() && *datacenter != request.app.datacenter {
        return Err(ApiError::internal("No path to datacenter"));
    }
    request.require_local_datacenter()?;
    let coordinate = update
        .coordinate
        .ok_or_else(|| ApiError::bad_request("Missing Coord"))?;
    if !coordinate.is_compatible() {
        return Err(ApiError::internal("incompatible coordinate"));
    }
    request.app.store.write(|state, changes| {
        state.set_coordinate(&update.node, &update.segment, coordinate, changes);
    });
    Ok(ApiResponse::empty())
}

impl<'a> From<NodeCoordinate<'a>> for NodeCoordinateView<'a> {
    fn from(it: NodeCoordinate<'a>) -> Self {
        let coordinate = it.coordinate;
        Self {
            node: it.node,
            segment: it.segment,
            coord: CoordinateView {
                vec: &coordinate.vec,
                error: coordinate.error,
                adjustment: coordinate.adjustment,
                height: coordinate.height,
            },
        }
    }
}
