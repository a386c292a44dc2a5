//! The routes as JSON, for programs that request `/`. Browsers get the dashboard.

use http::{Response, StatusCode};
use serde_json::{Value, json};

use super::ignored::describe_ignored;
use super::response::json_response;
use crate::response_body::ResponseBody;
use crate::routes::Routes;

pub(super) fn page(gateway: &str, routes: &Routes) -> Response<ResponseBody> {
    let ignored = describe_ignored(&routes.ignored_names());
    let routes = routes.all();
    let routes = routes.iter().map(|route| {
        json!({
            "hosts": route.hosts().iter().map(ToString::to_string).collect::<Vec<_>>(),
            "path": route.path().to_string(),
            "source": route.source().to_string(),
        })
    });
    let routes: Value = routes.collect();
    json_response(
        StatusCode::OK,
        &json!({"service": gateway, "routes": routes, "ignored": ignored}),
    )
}
