//! The routes of the API.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::sse::{Event, KeepAlive};
use axum::response::{IntoResponse, Response, Sse};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::{Stream, StreamExt};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::sync::broadcast::error::RecvError;

use super::access::BrowserAccess;
use super::changes::Change;
use super::error::ApiError;
use super::handle::Control;
use super::logs::{LogParams, follow};
use super::view::{
    LaunchView, LineView, ServiceKind, ServiceView, StackView, VariableView, is_secret,
};
use crate::error::SupervisorError;
use crate::service::VariableSource;

/// The maximum size of a request body.
const BODY_LIMIT: usize = 16 * 1024;
/// How often a comment is sent on a stream without events.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// The maximum number of replicas; a larger number is probably a typing error.
const MAX_REPLICAS: u32 = 200;

/// The API without access control, for the socket that only the user can open.
pub fn router(control: Control) -> Router {
    let private = Router::new()
        .route("/api/services/{name}/launch", get(launch))
        .route("/api/dashboard-link", get(dashboard_link))
        .with_state(control.clone());
    common(control).merge(private)
}

/// The API for browsers. Requests that change something need the token, and requests from other sites
/// are refused.
pub fn browser_router(control: Control, access: BrowserAccess) -> Router {
    access.protect(common(control))
}

fn common(control: Control) -> Router {
    Router::new()
        .route("/api/stack", get(stack))
        .route("/api/events", get(events))
        .route("/api/logs", get(logs))
        .route("/api/services/{name}/start", post(start))
        .route("/api/services/{name}/stop", post(stop))
        .route("/api/services/{name}/restart", post(restart))
        .route("/api/services/{name}/scale", post(scale))
        .route("/api/services/{name}/environment", get(environment))
        .route("/api/down", post(down))
        .with_state(control)
}

async fn stack(State(control): State<Control>) -> Json<StackView> {
    Json(control.stack())
}

async fn events(State(control): State<Control>, headers: HeaderMap) -> Response {
    sse(changes(control, last_seen(&headers)))
}

/// The snapshot or the missed changes, and then each change. A client that falls too far behind gets
/// another snapshot.
fn changes(control: Control, last_seen: Option<u64>) -> impl Stream<Item = Event> {
    let begin = |control: &Control, last_seen| {
        let (missed, live) = control.follow(last_seen);
        let first: Vec<Event> = match missed {
            Ok(missed) => missed.iter().map(service_event).collect(),
            Err(stack) => vec![snapshot_event(&stack)],
        };
        (first.into_iter(), live)
    };
    let (first, live) = begin(&control, last_seen);
    futures_util::stream::unfold((first, live, control), move |state| async move {
        let (mut first, mut live, control) = state;
        loop {
            if let Some(event) = first.next() {
                return Some((event, (first, live, control)));
            }
            match live.recv().await {
                Ok(change) => return Some((service_event(&change), (first, live, control))),
                Err(RecvError::Lagged(_)) => (first, live) = begin(&control, None),
                Err(RecvError::Closed) => return None,
            }
        }
    })
}

fn snapshot_event(stack: &StackView) -> Event {
    let data = serde_json::to_string(stack).unwrap_or_default();
    Event::default()
        .event("snapshot")
        .id(stack.event_id.to_string())
        .data(data)
}

fn service_event(change: &Change) -> Event {
    Event::default()
        .event("service")
        .id(change.id.to_string())
        .data(&*change.service)
}

async fn logs(
    State(control): State<Control>,
    headers: HeaderMap,
    Query(params): Query<LogParams>,
) -> Result<Response, ApiError> {
    let supervisor = control.supervisor();
    let known = supervisor.known_names();
    let filter = params.filter(&known)?;
    if params.follow {
        let lines = follow(
            supervisor.log(),
            filter,
            last_seen(&headers),
            params.count(),
        );
        return Ok(sse(lines.map(|line| match line {
            Ok(line) => {
                let data = serde_json::to_string(&line).unwrap_or_default();
                Event::default()
                    .event("line")
                    .id(line.id.to_string())
                    .data(data)
            }
            Err(1) => Event::default().comment("1 line was skipped"),
            Err(missed) => Event::default().comment(format!("{missed} lines were skipped")),
        })));
    }
    let lines = supervisor
        .log()
        .last(|line| filter.accepts(line), params.count());
    let mut body = String::new();
    for line in &lines {
        body += &serde_json::to_string(&LineView::from(line)).unwrap_or_default();
        body.push('\n');
    }
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// Whether to respond only when the action is done.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Wait {
    wait: bool,
}

impl Wait {
    /// Performs an action on a service, and responds with the service.
    async fn answer(
        self,
        control: &Control,
        name: &str,
        action: impl Future<Output = Result<(), SupervisorError>> + Send + 'static,
    ) -> Result<Response, ApiError> {
        // The action continues if the client disconnects.
        let task = tokio::spawn(action);
        let status = if self.wait {
            if let Ok(result) = task.await {
                result?;
            }
            StatusCode::OK
        } else {
            // Lets the action begin, so that the response shows it.
            tokio::task::yield_now().await;
            StatusCode::ACCEPTED
        };
        Ok((status, Json(view_of(control, name)?)).into_response())
    }
}

async fn start(
    State(control): State<Control>,
    Path(name): Path<String>,
    Query(wait): Query<Wait>,
) -> Result<Response, ApiError> {
    let supervisor = control.supervisor().clone();
    supervisor.check_known(&name)?;
    let service = name.clone();
    let action = async move { supervisor.start_service(&service).await };
    wait.answer(&control, &name, action).await
}

async fn stop(
    State(control): State<Control>,
    Path(name): Path<String>,
    Query(wait): Query<Wait>,
) -> Result<Response, ApiError> {
    let supervisor = control.supervisor().clone();
    supervisor.check_known(&name)?;
    let service = name.clone();
    let action = async move { supervisor.stop_service(&service).await };
    wait.answer(&control, &name, action).await
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RestartBody {
    cascade: bool,
}

async fn restart(
    State(control): State<Control>,
    Path(name): Path<String>,
    Query(wait): Query<Wait>,
    request: Request,
) -> Result<Response, ApiError> {
    let RestartBody { cascade } = body(request).await?;
    let supervisor = control.supervisor().clone();
    supervisor.check_known(&name)?;
    let mut services = vec![name.clone()];
    if cascade {
        services.extend(supervisor.dependents(&name));
    }
    let action = async move {
        let mut first_error = Ok(());
        for service in services {
            // The others are restarted even if one fails.
            let result = supervisor.restart(&service).await;
            first_error = first_error.and(result);
        }
        first_error
    };
    wait.answer(&control, &name, action).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScaleBody {
    replicas: u32,
}

async fn scale(
    State(control): State<Control>,
    Path(name): Path<String>,
    Query(wait): Query<Wait>,
    request: Request,
) -> Result<Response, ApiError> {
    let ScaleBody { replicas } = body(request).await?;
    let supervisor = control.supervisor().clone();
    supervisor.check_known(&name)?;
    if replicas > MAX_REPLICAS {
        let detail = format!("{replicas} instances are more than {MAX_REPLICAS}");
        return Err(ApiError::bad_request(detail));
    }
    let problem = match view_of(&control, &name)?.kind {
        ServiceKind::External => Some("it runs elsewhere"),
        ServiceKind::Once => Some("it is a one-time task"),
        ServiceKind::Process | ServiceKind::Builtin => None,
    };
    if let Some(problem) = problem {
        let detail = format!("`{name}` can't be scaled: {problem}");
        return Err(ApiError::new(StatusCode::CONFLICT, detail));
    }
    let service = name.clone();
    let action = async move { supervisor.scale(&service, replicas).await };
    wait.answer(&control, &name, action).await
}

async fn launch(
    State(control): State<Control>,
    Path(name): Path<String>,
) -> Result<Json<LaunchView>, ApiError> {
    let supervisor = control.supervisor();
    let variables = supervisor.environment(&name)?;
    let variables = variables.into_iter().map(|(name, value, _)| (name, value));
    Ok(Json(LaunchView {
        directory: std::path::absolute(supervisor.directory(&name)?).unwrap_or_default(),
        environment: variables.collect(),
    }))
}

async fn dashboard_link(State(control): State<Control>) -> Json<String> {
    Json(control.dashboard_link())
}

async fn environment(
    State(control): State<Control>,
    Path(name): Path<String>,
) -> Result<Json<Vec<VariableView>>, ApiError> {
    let own = control.supervisor().environment(&name)?;
    let shell = std::env::vars_os()
        .map(|(name, value)| {
            let text = |value: std::ffi::OsString| value.to_string_lossy().into_owned();
            (text(name), text(value), VariableSource::Shell)
        })
        .filter(|(name, ..)| !own.iter().any(|(known, ..)| known == name))
        .collect::<Vec<_>>();
    let mut all: Vec<VariableView> = own
        .into_iter()
        .chain(shell)
        // Waypost sets some variables to an empty value, which programs treat like an unset variable.
        .filter(|(_, value, source)| *source != VariableSource::Waypost || !value.is_empty())
        .map(|(name, value, source)| {
            let masked = is_secret(&name, &value);
            VariableView {
                value: if masked { "***".to_owned() } else { value },
                masked,
                source: source.to_string(),
                name,
            }
        })
        .collect();
    all.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Json(all))
}

async fn down(State(control): State<Control>) -> StatusCode {
    control.request_down();
    StatusCode::ACCEPTED
}

/// The service with this name, or that of the instance.
fn view_of(control: &Control, name: &str) -> Result<ServiceView, ApiError> {
    let stack = control.stack();
    let is_meant = |service: &ServiceView| {
        service.name == name || service.instances.iter().any(|it| it.id == name)
    };
    let found = stack.services.into_iter().find(is_meant);
    found.ok_or_else(|| {
        ApiError::new(
            StatusCode::NOT_FOUND,
            format!("there is no service `{name}`"),
        )
    })
}

/// Parses the JSON body of a request. An empty body counts as `{}`.
async fn body<T: DeserializeOwned>(request: Request) -> Result<T, ApiError> {
    let bytes = axum::body::to_bytes(request.into_body(), BODY_LIMIT)
        .await
        .map_err(|_| ApiError::bad_request("the body is too long or incomplete"))?;
    let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { &bytes };
    serde_json::from_slice(bytes).map_err(|error| ApiError::bad_request(format!("body: {error}")))
}

fn last_seen(headers: &HeaderMap) -> Option<u64> {
    headers.get("last-event-id")?.to_str().ok()?.parse().ok()
}

fn sse(events: impl Stream<Item = Event> + Send + 'static) -> Response {
    let events = events.map(Ok::<_, Infallible>);
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE);
    let headers = [(header::CACHE_CONTROL, "no-store")];
    (headers, Sse::new(events).keep_alive(keep_alive)).into_response()
}
