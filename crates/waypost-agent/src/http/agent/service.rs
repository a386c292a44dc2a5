//! `/v1/agent/service`: registering instances, and looking at one.

use std::sync::Arc;

use http::Method;
use tokio::time::{Instant, sleep_until};

use super::super::blocking::{DEFAULT_WAIT, LONGEST_WAIT};
use super::super::call::Call;
use super::super::refused::no_mesh;
use super::super::reply::{Refusal, Reply};
use super::super::route::{Handler, Route};
use super::enable;
use crate::decode::{CheckDefinition, ServiceDefinition};
use crate::store::{Topic, WHEREVER, fold};
use crate::wire::AgentService;

pub(in super::super) const ROUTES: &[Route] = &[
    Route::new(
        "/v1/agent/service/",
        &[(Method::GET, Handler::Later(|call| Box::pin(show(call))))],
    ),
    Route::new(
        "/v1/agent/service/register",
        &[(Method::PUT, Handler::Plain(register))],
    ),
    Route::new(
        "/v1/agent/service/deregister/",
        &[(Method::PUT, Handler::Plain(deregister))],
    ),
    Route::new(
        "/v1/agent/service/maintenance/",
        &[(Method::PUT, Handler::Plain(maintenance))],
    ),
];

/// With `?hash`, the answer waits until it has another one.
async fn show(call: Call) -> Result<Reply, Refusal> {
    let wait = call.wait()?.unwrap_or(DEFAULT_WAIT).min(LONGEST_WAIT);
    let deadline = Instant::now() + wait;
    let topic = Topic::Node(fold(&call.app.node_name));
    let watch = call.app.store.watch(topic);
    loop {
        let change = watch.listen();
        let (hash, reply) = look(&call)?;
        if hash != call.query.get("hash") {
            return Ok(reply);
        }
        tokio::select! {
            () = change => {}
            () = sleep_until(deadline) => return Ok(reply),
        }
    }
}

/// An instance, and the hash of what is known of it.
fn look(call: &Call) -> Result<(String, Reply), Refusal> {
    let id = call.rest.as_str();
    let service = call
        .app
        .store
        .read(|state| state.local.service(id).cloned());
    let service = service.ok_or_else(|| Refusal::not_found(format!("unknown service ID: {id}")))?;
    let (shown, hash) = AgentService::from(&*service).with_content_hash();
    let reply = call.json(&shown)?.header("x-consul-contenthash", &hash);
    Ok((hash, reply))
}

fn register(call: &Call) -> Result<Reply, Refusal> {
    let mut definition: ServiceDefinition = call.decode()?;
    if definition.service.name.is_empty() {
        return Err(Refusal::bad_request("Missing service name"));
    }
    if WHEREVER.contains(&definition.service.address.as_str()) {
        return Err(Refusal::bad_request("Invalid service address"));
    }
    if let Some(fault) = definition.fault() {
        return Err(Refusal::bad_request(fault));
    }
    for check in definition.all_checks() {
        check
            .kind()
            .map_err(|fault| Refusal::bad_request(format!("Invalid check: {fault}")))?;
    }
    let has_status = |check: &CheckDefinition| check.initial_status().is_some();
    if !definition.all_checks().all(has_status) {
        return Err(Refusal::bad_request(
            "Status for checks must 'passing', 'warning', 'critical'",
        ));
    }
    if definition.sidecar || definition.service.is_of_mesh() {
        return Err(no_mesh());
    }
    definition.service.add_derived_addresses();
    let replace_checks = call.query.has("replace-existing-checks")
        && matches!(call.query.get("replace-existing-checks"), "" | "true");
    call.app
        .registration
        .register_service(definition, replace_checks)
        .map_err(Refusal::internal)?;
    Ok(Reply::empty())
}

fn deregister(call: &Call) -> Result<Reply, Refusal> {
    if call.rest.is_empty() {
        return Err(Refusal::internal("ServiceID missing"));
    }
    call.app.registration.deregister_service(&call.rest);
    Ok(Reply::empty())
}

fn maintenance(call: &Call) -> Result<Reply, Refusal> {
    let id = call.rest.as_str();
    if id.is_empty() {
        return Err(Refusal::bad_request("Missing service ID"));
    }
    let enable = enable(call)?;
    let reason = call.query.get("reason");
    let service = call
        .app
        .store
        .read(|state| state.local.service(id).map(Arc::clone));
    let service = service
        .ok_or_else(|| Refusal::not_found(format!("No service registered with ID {id:?}")))?;
    call.app
        .registration
        .set_service_maintenance(&service, enable, reason);
    Ok(Reply::empty())
}
