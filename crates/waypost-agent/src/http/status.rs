//! `/v1/status`: who leads. There is one node, so it is always this one.

use http::Method;

use super::call::Call;
use super::reply::{Refusal, Reply};
use super::route::{Handler, Route};

pub(super) const ROUTES: &[Route] = &[
    Route::new(
        "/v1/status/leader",
        &[(Method::GET, Handler::Plain(leader))],
    )
    .beyond_namespaces(),
    Route::new("/v1/status/peers", &[(Method::GET, Handler::Plain(peers))]).beyond_namespaces(),
];

fn leader(call: &Call) -> Result<Reply, Refusal> {
    call.refuse_elsewhere()?;
    call.json(&call.app.leader())
}

fn peers(call: &Call) -> Result<Reply, Refusal> {
    call.refuse_elsewhere()?;
    call.json(&[call.app.leader()])
}
