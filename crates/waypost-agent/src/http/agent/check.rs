//! `/v1/agent/check`: registering checks, and reporting to those that wait for reports.

use http::Method;

use super::super::call::Call;
use super::super::reply::{Refusal, Reply};
use super::super::route::{Handler, Route};
use crate::decode::{CheckRegistration, CheckUpdate};
use crate::store::{Outcome, Status};

pub(in super::super) const ROUTES: &[Route] = &[
    Route::new(
        "/v1/agent/check/register",
        &[(Method::PUT, Handler::Plain(register))],
    ),
    Route::new(
        "/v1/agent/check/deregister/",
        &[(Method::PUT, Handler::Plain(deregister))],
    ),
    Route::new(
        "/v1/agent/check/pass/",
        &[(
            Method::PUT,
            Handler::Plain(|call| note(call, Status::Passing)),
        )],
    ),
    Route::new(
        "/v1/agent/check/warn/",
        &[(
            Method::PUT,
            Handler::Plain(|call| note(call, Status::Warning)),
        )],
    ),
    Route::new(
        "/v1/agent/check/fail/",
        &[(
            Method::PUT,
            Handler::Plain(|call| note(call, Status::Critical)),
        )],
    ),
    Route::new(
        "/v1/agent/check/update/",
        &[(Method::PUT, Handler::Plain(update))],
    ),
];

fn register(call: &Call) -> Result<Reply, Refusal> {
    let CheckRegistration(mut definition) = call.decode()?;
    if definition.name.is_empty() {
        return Err(Refusal::bad_request("Missing check name"));
    }
    if definition.initial_status().is_none() {
        return Err(Refusal::bad_request("Bad check status"));
    }
    definition
        .kind()
        .map_err(|fault| Refusal::bad_request(format!("Invalid check: {fault}")))?;
    if definition.id.is_empty() {
        definition.id.clone_from(&definition.name);
    }
    call.app
        .registration
        .register_check(definition)
        .map_err(Refusal::internal)?;
    Ok(Reply::empty())
}

fn deregister(call: &Call) -> Result<Reply, Refusal> {
    if call.rest.is_empty() {
        return Err(Refusal::internal("CheckID missing"));
    }
    call.app.registration.deregister_check(&call.rest);
    Ok(Reply::empty())
}

fn note(call: &Call, status: Status) -> Result<Reply, Refusal> {
    let output = call.query.get("note").to_owned();
    beat(call, Outcome { status, output })
}

fn update(call: &Call) -> Result<Reply, Refusal> {
    let CheckUpdate { status, output } = call.decode()?;
    let status = Status::parse(&status)
        .ok_or_else(|| Refusal::bad_request(format!("Invalid check status: '{status}'")))?;
    beat(call, Outcome { status, output })
}

fn beat(call: &Call, outcome: Outcome) -> Result<Reply, Refusal> {
    call.app
        .registration
        .beat(&call.rest, outcome)
        .map_err(Refusal::internal)?;
    Ok(Reply::empty())
}
