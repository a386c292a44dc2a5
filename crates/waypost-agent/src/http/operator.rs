//! `/v1/operator`, as far as it tells whether the servers are well: the one there is leads alone.
//! What an operator could change is refused (see [`super::refused`]).

use http::Method;
use serde::Serialize;

use super::call::Call;
use super::refused::OPERATOR;
use super::reply::{Refusal, Reply};
use super::route::{Handler, Route};
use crate::self_report::CONSUL_VERSION;

pub(super) const ROUTES: &[Route] = &[
    Route::new(
        "/v1/operator/raft/configuration",
        &[(Method::GET, Handler::Plain(configuration))],
    )
    .beyond_namespaces(),
    Route::new(
        "/v1/operator/autopilot/health",
        &[(Method::GET, Handler::Plain(health))],
    )
    .beyond_namespaces(),
    Route::new(
        "/v1/operator/autopilot/configuration",
        &[(Method::GET, OPERATOR), (Method::PUT, OPERATOR)],
    )
    .beyond_namespaces(),
];

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Configuration<'a> {
    servers: [Server<'a>; 1],
    index: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Server<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    node: &'a str,
    address: String,
    leader: bool,
    protocol_version: &'static str,
    voter: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Health<'a> {
    healthy: bool,
    failure_tolerance: u64,
    servers: [ServerHealth<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ServerHealth<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    name: &'a str,
    address: String,
    serf_status: &'static str,
    version: &'static str,
    leader: bool,
    last_contact: &'static str,
    last_term: u64,
    last_index: u64,
    healthy: bool,
    voter: bool,
    stable_since: String,
}

fn configuration(call: &Call) -> Result<Reply, Refusal> {
    call.refuse_elsewhere()?;
    call.json(&Configuration {
        servers: [Server {
            id: &call.app.node_id,
            node: &call.app.node_name,
            address: call.app.leader(),
            leader: true,
            protocol_version: "3",
            voter: true,
        }],
        index: 0,
    })
}

/// A Consul takes ten seconds to believe that it is well.
fn health(call: &Call) -> Result<Reply, Refusal> {
    call.refuse_elsewhere()?;
    call.json(&Health {
        healthy: true,
        failure_tolerance: 0,
        servers: [ServerHealth {
            id: &call.app.node_id,
            name: &call.app.node_name,
            address: call.app.leader(),
            serf_status: "alive",
            version: CONSUL_VERSION,
            leader: true,
            last_contact: "0s",
            last_term: 1,
            last_index: call.app.store.read(|state| state.index()),
            healthy: true,
            voter: true,
            stable_since: call.app.started(),
        }],
    })
}
