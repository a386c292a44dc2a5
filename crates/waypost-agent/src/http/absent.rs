//! What a Consul may have and this registry never has: prepared queries, intentions, config
//! entries, gateways. Who looks is told so in Consul's words: lists are empty, and names unknown.
//! Who wants to make one is refused clearly (see [`super::refused`]).

use bytes::Bytes;
use http::Method;

use super::blocking::{About, Found, Read};
use super::call::Call;
use super::refused::{CONFIG, INTENTIONS, QUERIES};
use super::reply::{Body, Refusal};
use super::route::{Handler, Route};
use crate::store::Topic;

const GET: Method = Method::GET;
const PUT: Method = Method::PUT;
const POST: Method = Method::POST;
const DELETE: Method = Method::DELETE;

pub(super) const ROUTES: &[Route] = &[
    Route::new(
        "/v1/query",
        &[(GET, read(About::Catalog, nothing)), (POST, QUERIES)],
    )
    .beyond_namespaces(),
    Route::new(
        "/v1/query/",
        &[
            (GET, Handler::Plain(|_| unknown("Query"))),
            (PUT, QUERIES),
            (DELETE, QUERIES),
        ],
    )
    .beyond_namespaces(),
    Route::new(
        "/v1/connect/intentions",
        &[(GET, read(About::Ui, nothing)), (POST, INTENTIONS)],
    )
    .beyond_namespaces(),
    Route::new(
        "/v1/connect/intentions/",
        &[
            (GET, Handler::Plain(|_| unknown("Intention"))),
            (PUT, INTENTIONS),
            (DELETE, INTENTIONS),
        ],
    )
    .beyond_namespaces(),
    Route::new(
        "/v1/config/",
        &[(GET, read(About::Ui, config)), (DELETE, CONFIG)],
    )
    .beyond_namespaces(),
    Route::new(
        "/v1/catalog/gateway-services/",
        &[(GET, read(About::Catalog, services_of_gateway))],
    )
    .beyond_namespaces(),
    Route::new(
        "/v1/health/ingress/",
        &[(GET, read(About::Catalog, instances_of_gateway))],
    )
    .beyond_namespaces(),
];

const KINDS_OF_CONFIG: [&str; 8] = [
    "",
    "ingress-gateway",
    "proxy-defaults",
    "service-defaults",
    "service-resolver",
    "service-router",
    "service-splitter",
    "terminating-gateway",
];

/// It never changes, so that a blocking query waits for its whole time.
const fn read(about: About, look: fn(&Call) -> Result<Found, Refusal>) -> Handler {
    Handler::Blocking(Read {
        topic: |_| Topic::Nodes,
        look,
        about,
    })
}

fn found(body: &'static str) -> Found {
    Found {
        index: 1,
        body: Body::Own(Bytes::from_static(body.as_bytes())),
    }
}

fn nothing(_: &Call) -> Result<Found, Refusal> {
    Ok(found("[]"))
}

fn unknown<T>(what: &str) -> Result<T, Refusal> {
    Err(Refusal::not_found(format!("{what} not found")))
}

fn config(call: &Call) -> Result<Found, Refusal> {
    let (kind, name) = call.rest.split_once('/').unwrap_or((&call.rest, ""));
    if !KINDS_OF_CONFIG.contains(&kind) {
        let words = format!("invalid config entry kind: {kind}");
        return Err(Refusal::internal(words));
    }
    if name.is_empty() {
        return nothing(call);
    }
    let words = format!("Config entry not found for {kind:?} / {name:?}");
    Err(Refusal::not_found(words))
}

fn services_of_gateway(call: &Call) -> Result<Found, Refusal> {
    call.name("gateway name")?;
    Ok(found("null"))
}

fn instances_of_gateway(call: &Call) -> Result<Found, Refusal> {
    call.name("service name")?;
    nothing(call)
}
