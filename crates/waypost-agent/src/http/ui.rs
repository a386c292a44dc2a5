//! `/ui/`: the dashboard, with the registry as its source.

use std::sync::OnceLock;

use http::{Method, StatusCode};
use waypost_dashboard::{Dashboard, Sources};

use super::request::ApiRequest;
use super::response::{ApiError, ApiResponse};
use super::route::{Handler, Route};

pub(super) const ROUTES: &[Route] =
    &[Route::new("/ui/", &[(Method::GET, Handler::Sync(page))]).without_namespace()];

fn page(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    let response = dashboard().respond(&request.suffix, &request.headers);
    // Links to Consul's page, such as /ui/dc1/services, get the start page.
    let response = match response {
        Some(response) => response,
        None if request.suffix.starts_with("assets/") => {
            return Ok(ApiResponse::empty().status(StatusCode::NOT_FOUND));
        }
        None => {
            let depth = request.suffix.matches('/').count();
            let root = if depth == 0 {
                "./".to_owned()
            } else {
                "../".repeat(depth)
            };
            dashboard().start_page(&root, &request.headers)
        }
    };
    Ok(ApiResponse::complete(response))
}

fn dashboard() -> &'static Dashboard {
    static DASHBOARD: OnceLock<Dashboard> = OnceLock::new();
    DASHBOARD.get_or_init(|| {
        Dashboard::new(&Sources {
            registry: Some("../v1/".to_owned()),
            registry_kind: Some("embedded".to_owned()),
            ..Sources::default()
        })
    })
}
