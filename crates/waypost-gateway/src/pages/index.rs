//! The routes as JSON, for programs that request `/`. Browsers get the dashboard.

use http::{Response, StatusCode};
use serde_json::json;

use super::response::json_response;
use crate::response_body::ResponseBody;
use crate::routes::Routes;

pub(super) fn page(gateway: &str, routes: &Routes) -> Response<ResponseBody> {
    let routes = routes.all();
    let paths: Vec<_> = routes
        .iter()
        .map(|route| route.path().to_string())
        .collect();
    json_response(
        StatusCode::OK,
        &json!({"service": gateway, "routes": paths}),
    )
}
