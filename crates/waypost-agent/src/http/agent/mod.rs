//! `/v1/agent`: this agent, and the services and checks that are registered with it.

pub(super) mod check;
pub(super) mod health;
pub(super) mod metrics;
pub(super) mod service;

use http::Method;

use super::request::ApiRequest;
use super::response::{ApiError, ApiResponse};
use super::route::{Handler, Route};
use super::select::{matches, parse_filter};
use crate::agent_info::{AgentInfo, Member, SERF_LAN_PORT};
use crate::filter::{CHECK, SERVICE};
use crate::go_compat;
use crate::store::Check;
use crate::wire::{AgentService, Pairs};

pub(super) const ROUTES: &[Route] = &[
    Route::new(
        "/v1/agent/self",
        &[(Method::GET, Handler::Sync(agent_self))],
    )
    .without_namespace(),
    Route::new(
        "/v1/agent/members",
        &[(Method::GET, Handler::Sync(members))],
    )
    .without_namespace(),
    Route::new(
        "/v1/agent/services",
        &[(Method::GET, Handler::Sync(services))],
    ),
    Route::new("/v1/agent/reload", &[(Method::PUT, Handler::Sync(reload))]).without_namespace(),
    Route::new("/v1/agent/leave", &[(Method::PUT, Handler::Sync(leave))]).without_namespace(),
    Route::new("/v1/agent/join/", &[(Method::PUT, Handler::Sync(join))]).without_namespace(),
    Route::new(
        "/v1/agent/force-leave/",
        &[(Method::PUT, Handler::Sync(force_leave))],
    )
    .without_namespace(),
    Route::new("/v1/agent/checks", &[(Method::GET, Handler::Sync(checks))]),
    Route::new(
        "/v1/agent/maintenance",
        &[(Method::PUT, Handler::Sync(maintenance))],
    )
    .without_namespace(),
];

fn agent_self(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    request.json(&AgentInfo::of(&request.app))
}

fn members(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    if !["", "_all"].contains(&request.query.get("segment")) {
        return Err(ApiError::internal(
            "Network segments are not supported in this version of Consul",
        ));
    }
    let wan = !request.query.get("wan").is_empty();
    request.json(&[Member::of(&request.app, wan)])
}

/// Does nothing, because there are no configuration files.
fn reload(_: &ApiRequest) -> Result<ApiResponse, ApiError> {
    Ok(ApiResponse::empty())
}

/// Notifies the owner of the agent, which then shuts it down.
fn leave(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    request.app.leave_requested.send_replace(true);
    Ok(ApiResponse::empty())
}

/// Succeeds only for the address of this agent, because there is no cluster.
fn join(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    let address = request.suffix.as_str();
    let port = format!(":{SERF_LAN_PORT}");
    let host = address.strip_suffix(&port).unwrap_or(address);
    if host == request.app.address || host == "localhost" {
        return Ok(ApiResponse::empty());
    }
    Err(ApiError::internal(format!(
        "1 error occurred:\n\t* Failed to join {address}: this registry has a single node; for a \
         cluster, use Consul\n\n"
    )))
}

fn force_leave(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    match request.suffix.as_str() {
        name if name == request.app.node_name => Ok(ApiResponse::empty()),
        name => Err(ApiError::internal(format!(
            "agent: No node found with name '{name}'"
        ))),
    }
}

fn services(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    let filter = parse_filter(request, &SERVICE).map_err(ApiError::internal)?;
    let services: Vec<_> = request
        .app
        .store
        .read(|state| state.local.services().cloned().collect());
    let pairs = services
        .iter()
        .map(|service| (&service.id, AgentService::from(&**service)))
        .filter(|(_, view)| matches(filter.as_ref(), || view));
    request.json(&Pairs(pairs.collect()))
}

fn checks(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    let filter = parse_filter(request, &CHECK).map_err(ApiError::internal)?;
    let checks: Vec<_> = request.app.store.read(|state| {
        let checks = state.local.checks();
        // The check is shared with the catalog, and the indexes are the catalog's.
        let without_indexes = |check: &Check| Check {
            create_index: 0,
            modify_index: 0,
            ..check.clone()
        };
        checks
            .map(|record| without_indexes(&record.check))
            .collect()
    });
    let pairs = checks
        .iter()
        .filter(|check| matches(filter.as_ref(), || check))
        .map(|check| (check.id.clone(), check));
    request.json(&Pairs(pairs.collect()))
}

fn maintenance(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    let enable = enable(request)?;
    request
        .app
        .agent_services
        .set_node_maintenance(enable, request.query.get("reason"));
    Ok(ApiResponse::empty())
}

/// The required parameter `?enable`.
fn enable(request: &ApiRequest) -> Result<bool, ApiError> {
    if !request.query.has("enable") {
        return Err(ApiError::bad_request("Missing value for enable"));
    }
    let text = request.query.get("enable");
    go_compat::parse_bool(text)
        .ok_or_else(|| ApiError::bad_request(format!("Invalid value for enable: {text:?}")))
}
