//! `/v1/agent/service`: registering instances, and reading one.

use std::sync::Arc;

use http::Method;
use tokio::time::{Instant, sleep_until};

use super::super::blocking::{DEFAULT_WAIT, MAX_WAIT};
use super::super::request::ApiRequest;
use super::super::response::{ApiError, ApiResponse};
use super::super::route::{Handler, Route};
use super::enable;
use crate::decode::ServiceDefinition;
use crate::store::{CheckDefinition, Topic, UNSPECIFIED_ADDRESSES, fold_case};
use crate::wire::AgentService;

pub(in super::super) const ROUTES: &[Route] = &[
    Route::new(
        "/v1/agent/service/",
        &[(
            Method::GET,
            Handler::Async(|request| Box::pin(read(request))),
        )],
    ),
    Route::new(
        "/v1/agent/service/register",
        &[(Method::PUT, Handler::Sync(register))],
    ),
    Route::new(
        "/v1/agent/service/deregister/",
        &[(Method::PUT, Handler::Sync(deregister))],
    ),
    Route::new(
        "/v1/agent/service/maintenance/",
        &[(Method::PUT, Handler::Sync(maintenance))],
    ),
];

/// Reads an instance. With `?hash`, waits until its content hash differs from that value.
async fn read(request: ApiRequest) -> Result<ApiResponse, ApiError> {
    let wait = request.wait()?.unwrap_or(DEFAULT_WAIT).min(MAX_WAIT);
    let deadline = Instant::now() + wait;
    let topic = Topic::Node(fold_case(&request.app.node_name));
    let watch = request.app.store.watch(topic);
    loop {
        let change = watch.listen();
        let (hash, response) = read_now(&request)?;
        if hash != request.query.get("hash") {
            return Ok(response);
        }
        tokio::select! {
            () = change => {}
            () = sleep_until(deadline) => return Ok(response),
        }
    }
}

/// An instance and its content hash.
fn read_now(request: &ApiRequest) -> Result<(String, ApiResponse), ApiError> {
    let id = request.suffix.as_str();
    let service = request
        .app
        .store
        .read(|state| state.local.service(id).cloned());
    let service =
        service.ok_or_else(|| ApiError::not_found(format!("unknown service ID: {id}")))?;
    let (view, hash) = AgentService::from(&*service).with_content_hash();
    let response = request.json(&view)?.header("x-consul-contenthash", &hash);
    Ok((hash, response))
}

fn register(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    let mut definition: ServiceDefinition = request.decode()?;
    if definition.service.name.is_empty() {
        return Err(ApiError::bad_request("Missing service name"));
    }
    if UNSPECIFIED_ADDRESSES.contains(&definition.service.address.as_str()) {
        return Err(ApiError::bad_request("Invalid service address"));
    }
    definition.validate().map_err(ApiError::bad_request)?;
    definition.validate_proxy().map_err(ApiError::bad_request)?;
    for check in definition.all_checks() {
        check
            .kind()
            .map_err(|error| ApiError::bad_request(format!("Invalid check: {error}")))?;
    }
    let has_status = |check: &CheckDefinition| check.initial_status().is_some();
    if !definition.all_checks().all(has_status) {
        return Err(ApiError::bad_request(
            "Status for checks must 'passing', 'warning', 'critical'",
        ));
    }
    let sidecar = definition.take_sidecar();
    definition.service.add_derived_addresses();
    let id = definition.service.id.clone();
    let replace_checks = request.query.has("replace-existing-checks")
        && matches!(request.query.get("replace-existing-checks"), "" | "true");
    request
        .app
        .agent_services
        .register_service(definition, replace_checks)
        .map_err(ApiError::internal)?;
    request.app.monitor.service_registered(&id);
    if let Some(sidecar) = sidecar {
        let id = sidecar.service.id.clone();
        request
            .app
            .agent_services
            .register_sidecar(sidecar, replace_checks)
            .map_err(ApiError::internal)?;
        request.app.monitor.service_registered(&id);
    }
    Ok(ApiResponse::empty())
}

fn deregister(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    if request.suffix.is_empty() {
        return Err(ApiError::internal("ServiceID missing"));
    }
    request
        .app
        .agent_services
        .deregister_service(&request.suffix);
    request.app.monitor.service_deregistered(&request.suffix);
    Ok(ApiResponse::empty())
}

fn maintenance(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    let id = request.suffix.as_str();
    if id.is_empty() {
        return Err(ApiError::bad_request("Missing service ID"));
    }
    let enable = enable(request)?;
    let reason = request.query.get("reason");
    let service = request
        .app
        .store
        .read(|state| state.local.service(id).map(Arc::clone));
    let service = service
        .ok_or_else(|| ApiError::not_found(format!("No service registered with ID {id:?}")))?;
    request
        .app
        .agent_services
        .set_service_maintenance(&service, enable, reason);
    Ok(ApiResponse::empty())
}
