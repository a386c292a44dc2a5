//! The paths of the service, and what every answer has in common.

use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, Path, State};
use axum::response::{IntoResponse, Response};
use axum::{Json, Router};
use http::{HeaderName, HeaderValue, Method, Uri};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::catalog::{Card, Catalog, UpstreamCard};
use crate::problem::Problem;
use crate::{docs, inference, stream};

/// The largest request body, in bytes.
pub(crate) const MAX_BODY: usize = 1024 * 1024;

const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");

/// What every handler needs.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) instance: Arc<str>,
    pub(crate) catalog: Arc<Catalog>,
}

pub(crate) fn router(instance: &str, catalog: Arc<Catalog>) -> Router {
    let api = Api {
        instance: instance.into(),
        catalog,
    };
    let served_by = header_value(instance);
    let (router, description) = OpenApiRouter::with_openapi(docs::description())
        .routes(routes!(list_models))
        .routes(routes!(get_model))
        .routes(routes!(inference::infer))
        .routes(routes!(stream::stream))
        .with_state(api)
        .split_for_parts();
    router
        .merge(docs::router(description))
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
        ))
}

/// The models of this instance.
#[derive(Serialize, ToSchema)]
struct ModelList {
    /// The instance that gave the answer.
    #[schema(example = "ai-models-1")]
    served_by: String,
    models: Vec<Card>,
    /// The upstream server, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream: Option<UpstreamCard>,
}

/// One model of this instance.
#[derive(Serialize, ToSchema)]
struct ModelAnswer {
    /// The instance that gave the answer.
    #[schema(example = "ai-models-1")]
    served_by: String,
    #[serde(flatten)]
    model: Card,
}

/// List the models.
///
/// While the upstream server is down, its models as last seen are listed as unavailable, with the reason.
#[utoipa::path(
    get, path = "/api/models", tag = "models",
    responses((status = OK, description = "Every model, local ones first", body = ModelList))
)]
async fn list_models(State(api): State<Api>) -> impl IntoResponse {
    let (models, upstream) = api.catalog.cards().await;
    Json(ModelList {
        served_by: api.instance.to_string(),
        models,
        upstream,
    })
}

/// Describe one model.
#[utoipa::path(
    get, path = "/api/models/{*id}", tag = "models",
    params(("id" = String, Path, description = "The model's id, which may hold slashes", example = "sentiment")),
    responses(
        (status = OK, description = "The model", body = ModelAnswer),
        (status = NOT_FOUND, description = "No such model; `models` lists those there are", body = Problem, content_type = "application/problem+json"),
        (status = SERVICE_UNAVAILABLE, description = "The upstream server, which may have it, never answered", body = Problem, content_type = "application/problem+json"),
    )
)]
async fn get_model(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<impl IntoResponse, Problem> {
    let chosen = api.catalog.choose(&id).await?;
    let (cards, _) = api.catalog.cards().await;
    match cards.into_iter().find(|card| card.id == chosen.id()) {
        Some(model) => Ok(Json(ModelAnswer {
            served_by: api.instance.to_string(),
            model,
        })),
        // The upstream dropped it between the two looks.
        None => Err(Problem::unknown_model(&id, &[])),
    }
}

/// An id with characters that a header can't carry is shown without them.
fn header_value(instance: &str) -> HeaderValue {
    let printable: String = instance.chars().filter(|c| c.is_ascii_graphic()).collect();
    HeaderValue::try_from(printable).unwrap_or(HeaderValue::from_static("unknown"))
}
