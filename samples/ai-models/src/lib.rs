//! A service of small AI models: it names the language of a text, scores its mood and finds its
//! keywords. The models are real, run inside the process and need no network.
//!
//! Given the address of an OpenAI-compatible server such as Ollama ([`Upstream`]), it also offers
//! that server's models and forwards to them, streaming token by token.
//!
//! It is a sample of a service built on `waypost`: it registers, answers health checks, says in
//! every answer which instance gave it (field `served_by`, header `x-served-by`), and leaves the
//! registry before it stops.
//!
//! | Path | |
//! |---|---|
//! | `GET /api/models`, `GET /api/models/{id}` | the models, and whether each is available |
//! | `POST /api/inference` | `{"model": "sentiment", "input": "What a day!"}`; `input` may be a list |
//! | `POST /api/inference/stream` | the same as server-sent events, as the parts of the answer come |
//! | `GET /openapi.json`, `GET /docs/` | the API's description, and a page to read and try it |
//!
//! Errors are problem details (RFC 9457).

mod api;
mod catalog;
mod docs;
mod inference;
mod models;
mod problem;
mod run;
mod stream;
mod upstream;

pub use run::{Config, RunError, run, run_until};
pub use upstream::{Upstream, UpstreamError};

use std::sync::Arc;

use axum::Router;

/// The name under which the service registers.
pub const SERVICE_NAME: &str = "ai-models";

/// The port it listens on unless told otherwise.
pub const DEFAULT_PORT: u16 = 8002;

/// Everything the service answers, save for health checks. `instance` is who every answer says
/// it is from.
pub fn router(instance: &str, upstream: Option<Upstream>) -> Router {
    api::router(instance, Arc::new(catalog::Catalog::new(upstream)))
}
