//! The OpenAPI description, and Swagger UI, which is embedded in the program.

use std::borrow::Cow;
use std::future::ready;
use std::io::Read;
use std::sync::Arc;

use axum::extract::Path;
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use axum::{Json, Router};
use flate2::read::GzDecoder;
use http::header;
use utoipa::{OpenApi, openapi};

use crate::problem::Problem;

const INDEX: &str = include_str!("../../swagger-ui/index.html");

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
    Router::new()
        .route(
            "/openapi.json",
            get(move || ready(Json(description.clone()))),
        )
        // Relative, so that a gateway's path prefix is kept.
        .route("/", get(|| ready(Redirect::temporary("docs"))))
        .route("/docs", get(|| ready(page_without_slash())))
        .route("/docs/", get(|| ready(file("index.html"))))
        .route(
            "/docs/{*file}",
            get(|Path(name): Path<String>| ready(file(&name))),
        )
}

/// The page at `/docs`, without a trailing slash: a base URL makes its relative links work.
fn page_without_slash() -> Response {
    let html = INDEX.replacen("<head>", "<head><base href=\"docs/\">", 1);
    respond("text/html", Cow::Owned(html.into_bytes()))
}

/// A file of the page; the answer is 404 for any other name.
fn file(name: &str) -> Response {
    match name {
        "index.html" => respond("text/html", Cow::Borrowed(INDEX.as_bytes())),
        "swagger-initializer.js" => respond(
            "text/javascript",
            Cow::Borrowed(include_bytes!("../../swagger-ui/swagger-initializer.js")),
        ),
        "swagger-ui-bundle.js" => respond(
            "text/javascript",
            decompress(include_bytes!("../../swagger-ui/swagger-ui-bundle.js.gz")),
        ),
        "swagger-ui.css" => respond(
            "text/css",
            decompress(include_bytes!("../../swagger-ui/swagger-ui.css.gz")),
        ),
        "favicon-32x32.png" => respond(
            "image/png",
            Cow::Borrowed(include_bytes!("../../swagger-ui/favicon-32x32.png")),
        ),
        _ => Problem::no_such_path(&format!("/docs/{name}")).into_response(),
    }
}

fn decompress(file: &'static [u8]) -> Cow<'static, [u8]> {
    let mut bytes = Vec::new();
    // The input is in memory and was compressed by us, so this cannot fail.
    let _ = GzDecoder::new(file).read_to_end(&mut bytes);
    Cow::Owned(bytes)
}

fn respond(content_type: &'static str, body: Cow<'static, [u8]>) -> Response {
    let headers = [
        (header::CONTENT_TYPE, content_type),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    (headers, body).into_response()
}
