//! A sample service built on `waypost`, with small AI models: one detects the language of a text,
//! one scores its sentiment, and one extracts its keywords. The models run inside the process and
//! work offline.
//!
//! With an OpenAI-compatible server such as Ollama ([`Upstream`]), the service also offers that
//! server's models: it forwards requests to them and streams their output token by token.
//!
//! The service registers itself, responds to health checks, and deregisters before it stops. Every
//! response says which instance sent it (field `served_by`, header `x-served-by`).
//!
//! | Path | |
//! |---|---|
//! | `GET /api/models`, `GET /api/models/{id}` | the models, and whether each is available |
//! | `POST /api/inference` | `{"model": "sentiment", "input": "What a day!"}`; `input` may be a list |
//! | `POST /api/inference/stream` | the same, as server-sent events while the result is computed |
//! | `GET /openapi.json`, `GET /docs/` | the OpenAPI description, and a page to read it and send requests |
//!
//! Errors are problem details (RFC 9457). An overloaded instance rejects requests within two seconds,
//! with status 503 and `retry-after`. Requests of web pages of other sites are refused (403).

mod admission;
mod api;
mod catalog;
mod models;
mod problem;
mod run;
mod upstream;

pub use run::{Config, DEFAULT_PORT, RunError, SERVICE_NAME, run, run_until};
pub use upstream::{Upstream, UpstreamError};

use std::sync::Arc;

use axum::Router;
use waypost::integration::axum::CrossOriginProtection;

/// The whole API of the service, without the health checks. `instance` is the instance ID that
/// every response carries.
pub fn router(instance: &str, upstream: Option<Upstream>) -> Router {
    let catalog = Arc::new(catalog::Catalog::new(upstream));
    api::router(instance, catalog, CrossOriginProtection::new())
}
