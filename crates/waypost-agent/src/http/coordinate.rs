//! `/v1/coordinate`: how far nodes are from each other. With one node there is nothing to measure,
//! so it stays where every node starts.

use http::Method;
use serde::Serialize;

use super::call::Call;
use super::reply::{Body, Refusal, Reply};
use super::router::{Handler, Route};
use crate::blocking::{About, Found, Read};
use crate::store::{Topic, fold};

pub(super) const ROUTES: &[Route] = &[
    Route::new(
        "/v1/coordinate/datacenters",
        &[(Method::GET, Handler::Plain(datacenters))],
    )
    .beyond_namespaces(),
    Route::new("/v1/coordinate/nodes", &[(Method::GET, read(nodes))]).beyond_namespaces(),
    Route::new("/v1/coordinate/node/", &[(Method::GET, read(node))]).beyond_namespaces(),
];

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Place<'a> {
    node: &'a str,
    segment: &'static str,
    coord: Coordinate,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Coordinate {
    vec: [f64; 8],
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
    coordinates: [Place<'a>; 1],
}

const fn read(look: fn(&Call) -> Result<Found, Refusal>) -> Handler {
    Handler::Blocking(Read {
        topic: |_| Topic::Nodes,
        look,
        about: About::Coordinates,
    })
}

fn datacenters(call: &Call) -> Result<Reply, Refusal> {
    call.json(&[Datacenter {
        datacenter: &call.app.datacenter,
        area: "wan",
        coordinates: [at_origin(&call.app.node_name)],
    }])
}

fn nodes(call: &Call) -> Result<Found, Refusal> {
    let is_wanted = call.query.get("segment").is_empty();
    found(
        call,
        call.json_body(
            &is_wanted
                .then(|| at_origin(&call.app.node_name))
                .into_iter()
                .collect::<Vec<_>>(),
        )?,
    )
}

fn node(call: &Call) -> Result<Found, Refusal> {
    let is_here = fold(&call.rest) == fold(&call.app.node_name);
    let body = if is_here && call.query.get("segment").is_empty() {
        call.json_body(&[at_origin(&call.rest)])?
    } else {
        Body::Missing
    };
    found(call, body)
}

fn found(call: &Call, body: Body) -> Result<Found, Refusal> {
    let index = call.app.store.read(|state| state.catalog.nodes().0);
    Ok(Found { index, body })
}

fn at_origin(node: &str) -> Place<'_> {
    Place {
        node,
        segment: "",
        coord: Coordinate {
            vec: [0.0; 8],
            error: 1.5,
            adjustment: 0.0,
            height: 1e-5,
        },
    }
}
