//! `/v1/agent`: this agent and what is registered with it.

pub(super) mod check;
pub(super) mod health;
pub(super) mod service;

use std::sync::Arc;

use http::Method;

use super::call::Call;
use super::reply::{Refusal, Reply};
use super::router::{Handler, Route};
use super::select::{filter, takes};
use crate::filter::{CHECK, SERVICE};
use crate::go;
use crate::self_report::{Member, SelfReport};
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
    call.json(&[Member::of(&call.app)])
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
    go::parse_bool(text)
        .ok_or_else(|| Refusal::bad_request(format!("Invalid value for enable: {text:?}")))
}
