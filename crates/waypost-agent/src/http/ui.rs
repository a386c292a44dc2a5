//! `/ui/`: a web page that shows the services and their health and updates itself.

use http::Method;

use super::request::ApiRequest;
use super::response::{ApiError, ApiResponse};
use super::route::{Handler, Route};

pub(super) const ROUTES: &[Route] = &[
    Route::new("/ui/", &[(Method::GET, Handler::Sync(page))]).without_namespace(),
    Route::new("/ui/app.js", &[(Method::GET, Handler::Sync(script))]).without_namespace(),
    Route::new("/ui/style.css", &[(Method::GET, Handler::Sync(style))]).without_namespace(),
];

/// The page, for every path below `/ui/` that isn't a file.
fn page(_: &ApiRequest) -> Result<ApiResponse, ApiError> {
    let page = include_str!("../ui/index.html");
    let response = ApiResponse::file("text/html; charset=utf-8", page);
    Ok(response.header(
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ))
}

fn script(_: &ApiRequest) -> Result<ApiResponse, ApiError> {
    let script = include_str!("../ui/app.js");
    Ok(ApiResponse::file("text/javascript; charset=utf-8", script))
}

fn style(_: &ApiRequest) -> Result<ApiResponse, ApiError> {
    let style = include_str!("../ui/style.css");
    Ok(ApiResponse::file("text/css; charset=utf-8", style))
}
