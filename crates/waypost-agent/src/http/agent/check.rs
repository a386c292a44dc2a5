//! `/v1/agent/check`: registering checks, and updating TTL checks.

use http::Method;

use super::super::request::ApiRequest;
use super::super::response::{ApiError, ApiResponse};
use super::super::route::{Handler, Route};
use crate::decode::{CheckRegistration, CheckUpdate};
use crate::store::{CheckResult, CheckStatus};

pub(in super::super) const ROUTES: &[Route] = &[
    Route::new(
        "/v1/agent/check/register",
        &[(Method::PUT, Handler::Sync(register))],
    ),
    Route::new(
        "/v1/agent/check/deregister/",
        &[(Method::PUT, Handler::Sync(deregister))],
    ),
    Route::new(
        "/v1/agent/check/pass/",
        &[(
            Method::PUT,
            Handler::Sync(|request| update_with_note(request, CheckStatus::Passing)),
        )],
    ),
    Route::new(
        "/v1/agent/check/warn/",
        &[(
            Method::PUT,
            Handler::Sync(|request| update_with_note(request, CheckStatus::Warning)),
        )],
    ),
    Route::new(
        "/v1/agent/check/fail/",
        &[(
            Method::PUT,
            Handler::Sync(|request| update_with_note(request, CheckStatus::Critical)),
        )],
    ),
    Route::new(
        "/v1/agent/check/update/",
        &[(Method::PUT, Handler::Sync(update))],
    ),
];

fn register(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    let CheckRegistration(mut definition) = request.decode()?;
    if definition.name.is_empty() {
        return Err(ApiError::bad_request("Missing check name"));
    }
    if definition.initial_status().is_none() {
        return Err(ApiError::bad_request("Bad check status"));
    }
    definition
        .kind()
        .map_err(|error| ApiError::bad_request(format!("Invalid check: {error}")))?;
    if definition.id.is_empty() {
        definition.id.clone_from(&definition.name);
    }
    request
        .app
        .agent_services
        .register_check(definition)
        .map_err(ApiError::internal)?;
    Ok(ApiResponse::empty())
}

fn deregister(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    if request.suffix.is_empty() {
        return Err(ApiError::internal("CheckID missing"));
    }
    request.app.agent_services.deregister_check(&request.suffix);
    Ok(ApiResponse::empty())
}

fn update_with_note(request: &ApiRequest, status: CheckStatus) -> Result<ApiResponse, ApiError> {
    let output = request.query.get("note").to_owned();
    update_ttl(request, CheckResult { status, output })
}

fn update(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    let CheckUpdate { status, output } = request.decode()?;
    let status = CheckStatus::parse(&status)
        .ok_or_else(|| ApiError::bad_request(format!("Invalid check status: '{status}'")))?;
    update_ttl(request, CheckResult { status, output })
}

fn update_ttl(request: &ApiRequest, result: CheckResult) -> Result<ApiResponse, ApiError> {
    request
        .app
        .agent_services
        .update_ttl(&request.suffix, result)
        .map_err(ApiError::internal)?;
    Ok(ApiResponse::empty())
}
