//! `/v1/agent`: this agent and what is registered with it.

pub(super) mod check;
pub(super) mod health;
pub(super) mod metrics;
pub(super) mod service;

use std::sync::Arc;

use http::Method;

use super::call::Call;
use super::reply::{Refusal, Reply};
use super::route::{Handler, Route};
use super::select::{filter, takes};
use crate::filter::{CHECK, SERVICE};
use crate::go_compat;
use crate::self_report::{Member, SERF_LAN_PORT, SelfReport};
use crate::wire::{AgentService, Pairs};

pub(super) const ROUTES: &[Route] = &[
    Route::new("/v1/agent/self", &[(Method::GET, Handler::Plain(myself))]).beyond_namespaces(),
    Route::new(
        "/v1/agent/members",
        &[(Method::GET, Handler::Plain(members))],
    )
    .beyond_namespaces(),
    Route::new(
        "/v1/agent/services",
        &[(Method::GET, Handler::Plain(services))],
    ),
    Route::new("/v1/agent/reload", &[(Method::PUT, Handler::Plain(reload))]).beyond_namespaces(),
    Route::new("/v1/agent/leave", &[(Method::PUT, Handler::Plain(leave))]).beyond_namespaces(),
    Route::new("/v1/agent/join/", &[(Method::PUT, Handler::Plain(join))]).beyond_namespaces(),
    Route::new(
        "/v1/agent/force-leave/",
        &[(Method::PUT, Handler::Plain(force_leave))],
    )
    .beyond_namespaces(),
    Route::new("/v1/agent/checks", &[(Method::GET, Handler::Plain(checks))]),
    Route::new(
        "/v1/agent/maintenance",
        &[(Method::PUT, Handler::Plain(maintenance))],
    )
    .beyond_namespaces(),
];

fn myself(call: &Call) -> Result<Reply, Refusal> {
    call.json(&SelfReport::of(&call.app))
}

fn members(call: &Call) -> Result<Reply, Refusal> {
    if !["", "_all"].contains(&call.query.get("segment")) {
        return Err(Refusal::internal(
            "Network segments are not supported in this version of Consul",
        ));
    }
    let wide = !call.query.get("wan").is_empty();
    call.json(&[Member::of(&call.app, wide)])
}

/// There are no files to read again.
fn reload(_: &Call) -> Result<Reply, Refusal> {
    Ok(Reply::empty())
}

/// Tells the agent's owner, who then ends it.
fn leave(call: &Call) -> Result<Reply, Refusal> {
    call.app.left.send_replace(true);
    Ok(Reply::empty())
}

/// This registry stands alone: of all there are, it can join itself.
fn join(call: &Call) -> Result<Reply, Refusal> {
    let address = call.rest.as_str();
    let port = format!(":{SERF_LAN_PORT}");
    let host = address.strip_suffix(&port).unwrap_or(address);
    if host == call.app.address || host == "localhost" {
        return Ok(Reply::empty());
    }
    Err(Refusal::internal(format!(
        "1 error occurred:\n\t* Failed to join {address}: this registry stands alone; for more than \
         one machine, use Consul\n\n"
    )))
}

fn force_leave(call: &Call) -> Result<Reply, Refusal> {
    match call.rest.as_str() {
        name if name == call.app.node_name => Ok(Reply::empty()),
        name => Err(Refusal::internal(format!(
            "agent: No node found with name '{name}'"
        ))),
    }
}

fn services(call: &Call) -> Result<Reply, Refusal> {
    let filter = filter(call, &SERVICE)?;
    let services: Vec<_> = call
        .app
        .store
        .read(|state| state.local.services().cloned().collect());
    let pairs = services
        .iter()
        .map(|service| (&service.id, AgentService::from(&**service)))
        .filter(|(_, shown)| takes(filter.as_ref(), || shown));
    call.json(&Pairs(pairs.collect()))
}

fn checks(call: &Call) -> Result<Reply, Refusal> {
    let filter = filter(call, &CHECK)?;
    let checks: Vec<_> = call.app.store.read(|state| {
        let checks = state.local.checks();
        checks.map(|record| Arc::clone(&record.check)).collect()
    });
    let pairs = checks
        .iter()
        .filter(|check| takes(filter.as_ref(), || check))
        .map(|check| (check.id.clone(), check));
    call.json(&Pairs(pairs.collect()))
}

fn maintenance(call: &Call) -> Result<Reply, Refusal> {
    let enable = enable(call)?;
    call.app
        .registration
        .set_node_maintenance(enable, call.query.get("reason"));
    Ok(Reply::empty())
}

/// `?enable`, which must be said.
fn enable(call: &Call) -> Result<bool, Refusal> {
    if !call.query.has("enable") {
        return Err(Refusal::bad_request("Missing value for enable"));
    }
    let text = call.query.get("enable");
    go_compat::parse_bool(text)
        .ok_or_else(|| Refusal::bad_request(format!("Invalid value for enable: {text:?}")))
}
