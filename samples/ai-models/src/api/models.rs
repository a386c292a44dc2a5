//! `GET /api/models` and `GET /api/models/{id}`.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use super::state::ApiState;
use crate::catalog::{ModelCard, UpstreamCard};
use crate::problem::Problem;

/// The models of this instance.
#[derive(Serialize, ToSchema)]
struct ModelList {
    /// The instance that sent the response.
    #[schema(example = "ai-models-1")]
    served_by: String,
    models: Vec<ModelCard>,
    /// The upstream server, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<UpstreamCard>,
}

/// One model of this instance.
#[derive(Serialize, ToSchema)]
struct ModelAnswer {
    /// The instance that sent the response.
    #[schema(example = "ai-models-1")]
    served_by: String,
    #[serde(flatten)]
    model: ModelCard,
}

/// List the models
///
/// While the upstream server is down, its last known models are listed as unavailable, with the
/// reason.
#[utoipa::path(
    get, path = "/api/models", tag = "models",
    responses((status = OK, description = "Every model, local ones first", body = ModelList))
)]
pub(super) async fn list_models(State(api): State<ApiState>) -> impl IntoResponse {
    let (models, upstream) = api.catalog.cards().await;
    Json(ModelList {
        served_by: api.instance.to_string(),
        models,
        upstream,
    })
}

/// Describe one model
#[utoipa::path(
    get, path = "/api/models/{*id}", tag = "models",
    params(("id" = String, Path, description = "The model's ID, which may contain slashes", example = "sentiment")),
    responses(
        (status = OK, description = "The model", body = ModelAnswer),
        (status = NOT_FOUND, description = "No such model; `models` lists the valid IDs", body = Problem, content_type = "application/problem+json"),
        (status = SERVICE_UNAVAILABLE, description = "The model may be an upstream one, but the upstream server has never responded", body = Problem, content_type = "application/problem+json"),
    )
)]
pub(super) async fn get_model(
    State(api): State<ApiState>,
    Path(id): Path<String>,
) -> Result<impl IntoResponse, Problem> {
    let found = api.catalog.find(&id).await?;
    let (cards, _) = api.catalog.cards().await;
    match cards.into_iter().find(|card| card.id == found.id()) {
        Some(model) => Ok(Json(ModelAnswer {
            served_by: api.instance.to_string(),
            model,
        })),
        // The upstream server dropped it between the two calls.
        None => Err(Problem::unknown_model(&id, &[])),
    }
}
