//! `/v1/status`: the leader and the peers. There is one node, so both are this one.

use http::Method;

use super::request::ApiRequest;
use super::response::{ApiError, ApiResponse};
use super::route::{Handler, Route};

pub(super) const ROUTES: &[Route] = &[
    Route::new("/v1/status/leader", &[(Method::GET, Handler::Sync(leader))]).without_namespace(),
    Route::new("/v1/status/peers", &[(Method::GET, Handler::Sync(peers))]).without_namespace(),
];

fn leader(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    request.require_local_datacenter()?;
    request.json(&request.app.leader())
}

fn peers(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    request.require_local_datacenter()?;
    request.json(&[request.app.leader()])
}
