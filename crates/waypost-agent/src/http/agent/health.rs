//! `/v1/agent/health`: the aggregated health of the instances of this agent, also as a status code
//! for load balancers.

use std::sync::Arc;

use http::{Method, StatusCode};

use super::super::request::ApiRequest;
use super::super::response::{ApiError, ApiResponse};
use super::super::route::{Handler, Route};
use crate::store::{Check, CheckStatus, Service, State};
use crate::wire::{AgentCheck, AgentService, ServiceHealth};

pub(in super::super) const ROUTES: &[Route] = &[
    Route::new(
        "/v1/agent/health/service/id/",
        &[(Method::GET, Handler::Sync(by_id))],
    ),
    Route::new(
        "/v1/agent/health/service/name/",
        &[(Method::GET, Handler::Sync(by_name))],
    ),
];

/// The worst status of the checks of an instance. Sorted from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum AggregatedStatus {
    Passing,
    Warning,
    Critical,
    Maintenance,
}

struct AggregatedHealth {
    service: Arc<Service>,
    checks: Vec<Arc<Check>>,
    status: AggregatedStatus,
}

fn by_id(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    let id = request.suffix.as_str();
    if id.is_empty() {
        return Err(ApiError::internal("Bad request: Missing serviceID"));
    }
    let health = request.app.store.read(|state| {
        let service = state.local.service(id)?;
        Some(aggregate(state, service))
    });
    let Some(health) = health else {
        let unknown = ServiceHealth {
            aggregated_status: "critical",
            service: None,
            checks: None,
        };
        let reason = format!("ServiceId {id} not found");
        // Consul ignores `?format=text` here and responds with JSON.
        let response = if wants_text(request) {
            request.json(&reason)?
        } else {
            request.json(&unknown)?
        };
        return Ok(response
            .status(StatusCode::NOT_FOUND)
            .header("x-consul-reason", reason));
    };
    let status = health.status;
    Ok(if wants_text(request) {
        text(status.as_str(), status.code())
    } else {
        request.json(&health.view())?.status(status.code())
    }
    .header("x-consul-reason", status.as_str()))
}

fn by_name(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    let name = request.suffix.as_str();
    if name.is_empty() {
        return Err(ApiError::internal("Bad request: Missing service Name"));
    }
    let instances: Vec<AggregatedHealth> = request.app.store.read(|state| {
        let services = state.local.services();
        let named = services.filter(|service| service.name == name);
        named.map(|service| aggregate(state, service)).collect()
    });
    let worst = instances.iter().map(|instance| instance.status).max();
    let (reason, code) = match worst {
        Some(status) => (status.as_str().to_owned(), status.code()),
        None => (
            format!("ServiceName {name} Not Found"),
            StatusCode::NOT_FOUND,
        ),
    };
    let response = if wants_text(request) {
        text(reason.clone(), code)
    } else {
        let views: Vec<_> = instances.iter().map(AggregatedHealth::view).collect();
        request.json(&views)?.status(code)
    };
    Ok(response.header("x-consul-reason", reason))
}

/// Aggregates the checks of an instance and of the node.
fn aggregate(state: &State, service: &Arc<Service>) -> AggregatedHealth {
    let of_node = state
        .local
        .checks()
        .map(|record| &record.check)
        .filter(|check| check.service_id.is_empty());
    let own = state.local.checks_of(&service.id);
    let checks: Vec<_> = own.chain(of_node).cloned().collect();
    let status = checks.iter().map(|check| AggregatedStatus::of(check)).max();
    AggregatedHealth {
        service: Arc::clone(service),
        status: status.unwrap_or(AggregatedStatus::Passing),
        checks,
    }
}

impl AggregatedHealth {
    fn view(&self) -> ServiceHealth<'_> {
        let checks = self.checks.iter();
        ServiceHealth {
            aggregated_status: self.status.as_str(),
            service: Some(AgentService::from(&*self.service)),
            checks: Some(checks.map(|check| AgentCheck::from(&**check)).collect()),
        }
    }
}

impl AggregatedStatus {
    fn of(check: &Check) -> Self {
        if check.is_maintenance() {
            return Self::Maintenance;
        }
        match check.status {
            CheckStatus::Passing => Self::Passing,
            CheckStatus::Warning => Self::Warning,
            CheckStatus::Critical => Self::Critical,
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Passing => "passing",
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Maintenance => "maintenance",
        }
    }

    fn code(self) -> StatusCode {
        match self {
            Self::Passing => StatusCode::OK,
            Self::Warning => StatusCode::TOO_MANY_REQUESTS,
            Self::Critical | Self::Maintenance => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

fn wants_text(request: &ApiRequest) -> bool {
    request.query.get("format") == "text"
}

fn text(text: impl Into<String>, status: StatusCode) -> ApiResponse {
    ApiResponse::typed("text/plain", text.into()).status(status)
}
