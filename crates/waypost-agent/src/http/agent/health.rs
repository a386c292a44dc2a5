//! `/v1/agent/health`: the health of this agent's instances in one word, also as a status code,
//! for load balancers that understand nothing else.

use std::sync::Arc;

use http::{Method, StatusCode};

use super::super::call::Call;
use super::super::reply::{Refusal, Reply};
use super::super::route::{Handler, Route};
use crate::store::{Check, Service, State, Status};
use crate::wire::{AgentCheck, AgentService, ServiceHealth};

pub(in super::super) const ROUTES: &[Route] = &[
    Route::new(
        "/v1/agent/health/service/id/",
        &[(Method::GET, Handler::Plain(by_id))],
    ),
    Route::new(
        "/v1/agent/health/service/name/",
        &[(Method::GET, Handler::Plain(by_name))],
    ),
];

/// The worst of an instance's checks, from best to worst.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Passing,
    Warning,
    Critical,
    Maintenance,
}

struct Judged {
    service: Arc<Service>,
    checks: Vec<Arc<Check>>,
    verdict: Verdict,
}

fn by_id(call: &Call) -> Result<Reply, Refusal> {
    let id = call.rest.as_str();
    if id.is_empty() {
        return Err(Refusal::internal("Bad request: Missing serviceID"));
    }
    let judged = call.app.store.read(|state| {
        let service = state.local.service(id)?;
        Some(judge(state, service))
    });
    let Some(judged) = judged else {
        let unknown = ServiceHealth {
            aggregated_status: "critical",
            service: None,
            checks: None,
        };
        let reason = format!("ServiceId {id} not found");
        // Here Consul forgets that it was asked for text, and sends JSON.
        let reply = if wants_text(call) {
            call.json(&reason)?
        } else {
            call.json(&unknown)?
        };
        return Ok(reply
            .status(StatusCode::NOT_FOUND)
            .header("x-consul-reason", reason));
    };
    let verdict = judged.verdict;
    Ok(if wants_text(call) {
        text(verdict.as_str(), verdict.status())
    } else {
        call.json(&judged.shown())?.status(verdict.status())
    }
    .header("x-consul-reason", verdict.as_str()))
}

fn by_name(call: &Call) -> Result<Reply, Refusal> {
    let name = call.rest.as_str();
    if name.is_empty() {
        return Err(Refusal::internal("Bad request: Missing service Name"));
    }
    let judged: Vec<Judged> = call.app.store.read(|state| {
        let services = state.local.services();
        let named = services.filter(|service| service.name == name);
        named.map(|service| judge(state, service)).collect()
    });
    let worst = judged.iter().map(|judged| judged.verdict).max();
    let (reason, status) = match worst {
        Some(verdict) => (verdict.as_str().to_owned(), verdict.status()),
        None => (
            format!("ServiceName {name} Not Found"),
            StatusCode::NOT_FOUND,
        ),
    };
    let reply = if wants_text(call) {
        text(reason.clone(), status)
    } else {
        let shown: Vec<_> = judged.iter().map(Judged::shown).collect();
        call.json(&shown)?.status(status)
    };
    Ok(reply.header("x-consul-reason", reason))
}

/// An instance's verdict counts its own checks and those of the node.
fn judge(state: &State, service: &Arc<Service>) -> Judged {
    let of_node = state
        .local
        .checks()
        .map(|record| &record.check)
        .filter(|check| check.service_id.is_empty());
    let own = state.local.checks_of(&service.id);
    let checks: Vec<_> = own.chain(of_node).cloned().collect();
    let verdict = checks.iter().map(|check| Verdict::of(check)).max();
    Judged {
        service: Arc::clone(service),
        verdict: verdict.unwrap_or(Verdict::Passing),
        checks,
    }
}

impl Judged {
    fn shown(&self) -> ServiceHealth<'_> {
        let checks = self.checks.iter();
        ServiceHealth {
            aggregated_status: self.verdict.as_str(),
            service: Some(AgentService::from(&*self.service)),
            checks: Some(checks.map(|check| AgentCheck::from(&**check)).collect()),
        }
    }
}

impl Verdict {
    fn of(check: &Check) -> Self {
        if check.is_maintenance() {
            return Self::Maintenance;
        }
        match check.status {
            Status::Passing => Self::Passing,
            Status::Warning => Self::Warning,
            Status::Critical => Self::Critical,
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

    fn status(self) -> StatusCode {
        match self {
            Self::Passing => StatusCode::OK,
            Self::Warning => StatusCode::TOO_MANY_REQUESTS,
            Self::Critical | Self::Maintenance => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

fn wants_text(call: &Call) -> bool {
    call.query.get("format") == "text"
}

fn text(text: impl Into<String>, status: StatusCode) -> Reply {
    Reply::typed("text/plain", text.into()).status(status)
}
