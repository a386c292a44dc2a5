//! `/v1/operator`: the Raft configuration and the health of the servers, of which there is one.
//! Changes aren't supported (see [`super::unsupported`]).

use http::Method;
use serde::Serialize;

use super::request::ApiRequest;
use super::response::{ApiError, ApiResponse};
use super::route::{Handler, Route};
use super::unsupported::OPERATOR;
use crate::agent_info::CONSUL_VERSION;

pub(super) const ROUTES: &[Route] = &[
    Route::new(
        "/v1/operator/raft/configuration",
        &[(Method::GET, Handler::Sync(configuration))],
    )
    .without_namespace(),
    Route::new(
        "/v1/operator/autopilot/health",
        &[(Method::GET, Handler::Sync(health))],
    )
    .without_namespace(),
    Route::new(
        "/v1/operator/autopilot/configuration",
        &[(Method::GET, OPERATOR), (Method::PUT, OPERATOR)],
    )
    .without_namespace(),
];

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RaftConfiguration<'a> {
    servers: [RaftServer<'a>; 1],
    index: u64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RaftServer<'a> {
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
struct AutopilotHealth<'a> {
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

fn configuration(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    request.require_local_datacenter()?;
    request.json(&RaftConfiguration {
        servers: [RaftServer {
            id: &request.app.node_id,
            node: &request.app.node_name,
            address: request.app.leader(),
            leader: true,
            protocol_version: "3",
            voter: true,
        }],
        index: 0,
    })
}

/// Always healthy. A Consul server reports this only after ten seconds.
fn health(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    request.require_local_datacenter()?;
    request.json(&AutopilotHealth {
        healthy: true,
        failure_tolerance: 0,
        servers: [ServerHealth {
            id: &request.app.node_id,
            name: &request.app.node_name,
            address: request.app.leader(),
            serf_status: "alive",
            version: CONSUL_VERSION,
            leader: true,
            last_contact: "0s",
            last_term: 1,
            last_index: request.app.store.read(|state| state.index()),
            healthy: true,
            voter: true,
            stable_since: request.app.started(),
        }],
    })
}
