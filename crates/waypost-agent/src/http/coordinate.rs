//! `/v1/coordinate`: how far nodes are from each other, as far as they say it. The one node of this
//! registry has nobody to measure with, so it stays where every node starts.

use http::Method;
use serde::Serialize;

use super::blocking::{About, Found, Read};
use super::call::Call;
use super::reply::{Body, Refusal, Reply};
use super::route::{Handler, Route};
use crate::decode::CoordinateUpdate;
use crate::store::{Coordinate, Topic, fold};

pub(super) const ROUTES: &[Route] = &[
    Route::new(
        "/v1/coordinate/datacenters",
        &[(Method::GET, Handler::Plain(datacenters))],
    )
    .beyond_namespaces(),
    Route::new("/v1/coordinate/nodes", &[(Method::GET, read(nodes))]).beyond_namespaces(),
    Route::new("/v1/coordinate/node/", &[(Method::GET, read(node))]).beyond_namespaces(),
    Route::new(
        "/v1/coordinate/update",
        &[(Method::PUT, Handler::Plain(update))],
    )
    .beyond_namespaces(),
];

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Place<'a> {
    node: &'a str,
    segment: &'a str,
    coord: Shown<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Shown<'a> {
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
    coordinates: [Place<'a>; 1],
}

const fn read(look: fn(&Call) -> Result<Found, Refusal>) -> Handler {
    Handler::Blocking(Read {
        topic: |_| Topic::Coordinates,
        look,
        about: About::Coordinates,
    })
}

fn datacenters(call: &Call) -> Result<Reply, Refusal> {
    call.json(&[Datacenter {
        datacenter: &call.app.datacenter,
        area: "wan",
        coordinates: [Place::of((&call.app.node_name, "", &Coordinate::origin()))],
    }])
}

/// Those in one segment of the network, or all.
fn nodes(call: &Call) -> Result<Found, Refusal> {
    call.app.store.read(|state| {
        let (index, places) = state.places();
        let wanted = places.filter(|(_, segment, _)| takes(call, segment));
        let body = call.json_body(&wanted.map(Place::of).collect::<Vec<_>>())?;
        Ok(Found { index, body })
    })
}

/// Shown by the name that was asked for.
fn node(call: &Call) -> Result<Found, Refusal> {
    let name = fold(&call.rest);
    call.app.store.read(|state| {
        let (index, places) = state.places();
        let its = places.filter(|(node, segment, _)| fold(node) == name && takes(call, segment));
        let places = its.map(|(_, segment, coordinate)| (call.rest.as_str(), segment, coordinate));
        let places: Vec<_> = places.map(Place::of).collect();
        let body = match places.is_empty() {
            true => Body::Missing,
            false => call.json_body(&places)?,
        };
        Ok(Found { index, body })
    })
}

fn takes(call: &Call, segment: &str) -> bool {
    !call.query.has("segment") || call.query.get("segment") == segment
}

/// Consul takes note of it within five seconds; here it counts at once.
fn update(call: &Call) -> Result<Reply, Refusal> {
    let update: CoordinateUpdate = call.decode()?;
    let datacenter = &update.datacenter;
    if !datacenter.is_empty() && *datacenter != call.app.datacenter {
        return Err(Refusal::internal("No path to datacenter"));
    }
    call.refuse_elsewhere()?;
    let coordinate = update
        .coordinate
        .ok_or_else(|| Refusal::bad_request("Missing Coord"))?;
    if !coordinate.is_compatible() {
        return Err(Refusal::internal("incompatible coordinate"));
    }
    call.app.store.write(|state, changes| {
        state.locate(&update.node, &update.segment, coordinate, changes);
    });
    Ok(Reply::empty())
}

impl<'a> Place<'a> {
    fn of((node, segment, coordinate): (&'a str, &'a str, &'a Coordinate)) -> Self {
        Self {
            node,
            segment,
            coord: Shown {
                vec: &coordinate.vec,
                error: coordinate.error,
                adjustment: coordinate.adjustment,
                height: coordinate.height,
            },
        }
    }
}
