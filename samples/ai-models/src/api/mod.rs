//! The HTTP API: its routes, and the headers of all responses.

mod docs;
mod inference;
mod models;
mod state;
mod stream;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::response::Response;
use http::{HeaderName, HeaderValue, Method, Uri};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use waypost::integration::axum::CrossOriginProtection;

use self::state::{ApiState, MAX_BODY};
use crate::catalog::Catalog;
use crate::problem::Problem;

const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");

pub(crate) fn router(
    instance: &str,
    catalog: Arc<Catalog>,
    protection: CrossOriginProtection,
) -> Router {
    let state = ApiState {
        instance: instance.into(),
        catalog,
    };
    let served_by = header_value(instance);
    let (router, openapi) = OpenApiRouter::with_openapi(docs::openapi())
        .routes(routes!(models::list_models))
        .routes(routes!(models::get_model))
        .routes(routes!(inference::infer))
        .routes(routes!(stream::stream))
        .with_state(state)
        .split_for_parts();
    let router = router
        .merge(docs::router(openapi))
        .fallback(|uri: Uri| async move { Problem::no_such_path(uri.path()) })
        .method_not_allowed_fallback(|method: Method, uri: Uri| async move {
            Problem::wrong_method(method.as_str(), uri.path())
        })
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(axum::middleware::map_response(
            move |mut response: Response| {
                response.headers_mut().insert(SERVED_BY, served_by.clone());
                std::future::ready(response)
            },
        ));
    protection.protect(router)
}

/// The instance ID without the characters that a header can't carry.
fn header_value(instance: &str) -> HeaderValue {
    let printable: String = instance.chars().filter(|c| c.is_ascii_graphic()).collect();
    HeaderValue::try_from(printable).unwrap_or(HeaderValue::from_static("unknown"))
}
