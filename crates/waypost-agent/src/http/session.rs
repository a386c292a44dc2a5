//! `/v1/session`: sessions, which hold locks.

use http::Method;
use serde_json::json;
use tokio::time::Instant;

use super::blocking::{QueryKind, QueryResult};
use super::request::ApiRequest;
use super::response::{ApiError, ApiResponse};
use super::route::{Handler, Route};
use crate::decode::SessionDefinition;
use crate::ids;
use crate::store::{Session, Topic, fold_case};

pub(super) const ROUTES: &[Route] = &[
    Route::new(
        "/v1/session/create",
        &[(Method::PUT, Handler::Sync(create))],
    ),
    Route::new(
        "/v1/session/destroy/",
        &[(Method::PUT, Handler::Sync(destroy))],
    ),
    Route::new("/v1/session/renew/", &[(Method::PUT, Handler::Sync(renew))]),
    Route::new("/v1/session/info/", &[(Method::GET, read(info))]),
    Route::new("/v1/session/node/", &[(Method::GET, read(of_node))]),
    Route::new("/v1/session/list", &[(Method::GET, read(list))]),
];

const fn read(run: fn(&ApiRequest) -> Result<QueryResult, ApiError>) -> Handler {
    Handler::blocking(QueryKind::Sessions, |_| Topic::Sessions, run)
}

fn create(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    let definition = if request.body.is_empty() {
        SessionDefinition::default()
    } else {
        request.decode()?
    };
    request.require_local_datacenter()?;
    let mut session = definition
        .into_session(&request.app.node_name)
        .map_err(ApiError::internal)?;
    session.id = request.app.random(ids::random);
    let id = json!({ "ID": session.id });
    let now = Instant::now().into_std();
    request
        .app
        .store
        .write(|state, changes| state.create_session(session, now, changes))
        .map_err(ApiError::internal)?;
    request.json(&id)
}

fn destroy(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    let id = id(request)?;
    request.require_local_datacenter()?;
    let now = Instant::now().into_std();
    request
        .app
        .store
        .write(|state, changes| state.destroy_session(id, now, changes))
        .map_err(ApiError::internal)?;
    request.json(&true)
}

fn renew(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    let id = id(request)?;
    request.require_local_datacenter()?;
    let now = Instant::now().into_std();
    let renewed = request
        .app
        .store
        .write(|state, _| state.sessions.renew(id, now));
    match renewed.map_err(ApiError::internal)? {
        Some(session) => request.json(&[session]),
        None => Err(ApiError::not_found(format!("Session id '{id}' not found"))),
    }
}

fn id(request: &ApiRequest) -> Result<&str, ApiError> {
    request.required_suffix("session")
}

fn info(request: &ApiRequest) -> Result<QueryResult, ApiError> {
    let id = id(request)?;
    let (index, found) = request.app.store.read(|state| {
        let found = state.sessions.find(id).map(|session| session.cloned());
        (state.sessions.list().0, found)
    });
    let found = found.map_err(ApiError::query_error)?;
    let body = request.json_body(&found.into_iter().collect::<Vec<_>>())?;
    Ok(QueryResult { index, body })
}

fn of_node(request: &ApiRequest) -> Result<QueryResult, ApiError> {
    let node = fold_case(request.required_suffix("node name")?);
    list_matching(request, |session| fold_case(&session.node) == node)
}

fn list(request: &ApiRequest) -> Result<QueryResult, ApiError> {
    list_matching(request, |_| true)
}

fn list_matching(
    request: &ApiRequest,
    is_wanted: impl Fn(&Session) -> bool,
) -> Result<QueryResult, ApiError> {
    let (index, sessions) = request.app.store.read(|state| {
        let (index, sessions) = state.sessions.list();
        let wanted = sessions.filter(|session| is_wanted(session));
        (index, wanted.cloned().collect::<Vec<_>>())
    });
    let body = request.json_body(&sessions)?;
    Ok(QueryResult { index, body })
}
