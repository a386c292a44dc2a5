//! The OpenAPI description, and Swagger UI, which is embedded in the program.

use std::sync::Arc;

use axum::extract::Path;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::{HeaderName, HeaderValue, StatusCode, header};
use utoipa::{OpenApi, openapi};

use crate::problem::Problem;

/// Allows only resources of this service. Swagger UI needs inline styles and `data:` images.
const POLICY: &str = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'";

#[derive(OpenApi)]
#[openapi(
    info(
        title = "AI models",
        description = "Small models that run inside the service: language identification, sentiment analysis \
                       and keyword extraction. With an OpenAI-compatible upstream server, that server's \
                       models too.",
    ),
    // Relative to this document, so that it works behind a gateway's path prefix.
    servers((url = ".", description = "The server of this document")),
    tags((name = "models", description = "List the models"), (name = "inference", description = "Run a model"))
)]
struct Description;

/// The description without the paths, which the router adds.
pub(super) fn openapi() -> openapi::OpenApi {
    Description::openapi()
}

pub(super) fn router(mut description: openapi::OpenApi) -> Router {
    // OpenAPI has no wildcards in paths.
    if let Some(model) = description.paths.paths.remove("/api/models/{*id}") {
        description
            .paths
            .paths
            .insert("/api/models/{id}".to_owned(), model);
    }
    let description = Arc::new(description);
    let config = utoipa_swagger_ui::Config::new(["../openapi.json"])
        .use_base_layout()
        .try_it_out_enabled(true)
        .validator_url("none")
        .display_request_duration(true);
    let config = Arc::new(config);
    let (bare, index) = (config.clone(), config.clone());
    Router::new()
        .route(
            "/openapi.json",
            get(move || std::future::ready(Json(description.clone()))),
        )
        // Relative, so that a gateway's path prefix is kept.
        .route("/", get(|| async { redirect("docs") }))
        .route(
            "/docs",
            get(move || std::future::ready(page_without_slash(bare))),
        )
        .route("/docs/", get(move || std::future::ready(page("", index))))
        .route(
            "/docs/{*file}",
            get(move |Path(file): Path<String>| std::future::ready(page(&file, config))),
        )
}

fn redirect(to: &'static str) -> Response {
    (
        StatusCode::TEMPORARY_REDIRECT,
        [(header::LOCATION, HeaderValue::from_static(to))],
    )
        .into_response()
}

/// The page at `/docs`, without a trailing slash: a base URL makes its relative links work.
fn page_without_slash(config: Arc<utoipa_swagger_ui::Config<'static>>) -> Response {
    page_with("", config, |html| match std::str::from_utf8(html) {
        Ok(html) => html
            .replacen("<head>", "<head><base href=\"docs/\">", 1)
            .into_bytes(),
        Err(_) => html.to_vec(),
    })
}

fn page(file: &str, config: Arc<utoipa_swagger_ui::Config<'static>>) -> Response {
    page_with(file, config, <[u8]>::to_vec)
}

fn page_with(
    file: &str,
    config: Arc<utoipa_swagger_ui::Config<'static>>,
    edit: impl FnOnce(&[u8]) -> Vec<u8>,
) -> Response {
    match utoipa_swagger_ui::serve(file, config) {
        Ok(Some(found)) => {
            let policy = HeaderValue::from_static(POLICY);
            let headers = [
                (
                    header::CONTENT_TYPE,
                    HeaderValue::try_from(found.content_type).ok(),
                ),
                (header::CONTENT_SECURITY_POLICY, Some(policy)),
                (
                    HeaderName::from_static("x-content-type-options"),
                    Some(HeaderValue::from_static("nosniff")),
                ),
            ];
            let mut response = edit(&found.bytes).into_response();
            for (name, value) in headers {
                if let Some(value) = value {
                    response.headers_mut().insert(name, value);
                }
            }
            response
        }
        _ => Problem::no_such_path(&format!("/docs/{file}")).into_response(),
    }
}
