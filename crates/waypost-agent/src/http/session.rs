//! `/v1/session`: sessions, which hold locks.

use http::Method;
use serde_json::json;
use tokio::time::Instant;

use super::blocking::{About, Found, Read};
use super::call::Call;
use super::reply::{Refusal, Reply};
use super::route::{Handler, Route};
use crate::decode::SessionDefinition;
use crate::ids;
use crate::store::{Session, Topic, fold};

pub(super) const ROUTES: &[Route] = &[
    Route::new(
        "/v1/session/create",
        &[(Method::PUT, Handler::Plain(create))],
    ),
    Route::new(
        "/v1/session/destroy/",
        &[(Method::PUT, Handler::Plain(destroy))],
    ),
    Route::new(
        "/v1/session/renew/",
        &[(Method::PUT, Handler::Plain(renew))],
    ),
    Route::new("/v1/session/info/", &[(Method::GET, read(info))]),
    Route::new("/v1/session/node/", &[(Method::GET, read(of_node))]),
    Route::new("/v1/session/list", &[(Method::GET, read(list))]),
];

const fn read(look: fn(&Call) -> Result<Found, Refusal>) -> Handler {
    Handler::Blocking(Read {
        topic: |_| Topic::Sessions,
        look,
        about: About::Sessions,
    })
}

fn create(call: &Call) -> Result<Reply, Refusal> {
    let definition = match call.body.is_empty() {
        true => SessionDefinition::default(),
        false => call.decode()?,
    };
    call.refuse_elsewhere()?;
    let mut session = definition
        .into_session(&call.app.node_name)
        .map_err(Refusal::internal)?;
    session.id = call.app.random(ids::random);
    let id = json!({ "ID": session.id });
    let now = Instant::now().into_std();
    call.app
        .store
        .write(|state, changes| state.create_session(session, now, changes))
        .map_err(Refusal::internal)?;
    call.json(&id)
}

fn destroy(call: &Call) -> Result<Reply, Refusal> {
    let id = id(call)?;
    call.refuse_elsewhere()?;
    let now = Instant::now().into_std();
    call.app
        .store
        .write(|state, changes| state.destroy_session(id, now, changes))
        .map_err(Refusal::internal)?;
    call.json(&true)
}

fn renew(call: &Call) -> Result<Reply, Refusal> {
    let id = id(call)?;
    call.refuse_elsewhere()?;
    let now = Instant::now().into_std();
    let renewed = call
        .app
        .store
        .write(|state, _| state.sessions.renew(id, now));
    match renewed.map_err(Refusal::internal)? {
        Some(session) => call.json(&[session]),
        None => Err(Refusal::not_found(format!("Session id '{id}' not found"))),
    }
}

fn id(call: &Call) -> Result<&str, Refusal> {
    call.name("session")
}

fn info(call: &Call) -> Result<Found, Refusal> {
    let id = id(call)?;
    let (index, found) = call.app.store.read(|state| {
        let found = state.sessions.find(id).map(|session| session.cloned());
        (state.sessions.list().0, found)
    });
    let found = found.map_err(Refusal::of_read)?;
    let body = call.json_body(&found.into_iter().collect::<Vec<_>>())?;
    Ok(Found { index, body })
}

fn of_node(call: &Call) -> Result<Found, Refusal> {
    let node = fold(call.name("node name")?);
    those(call, |session| fold(&session.node) == node)
}

fn list(call: &Call) -> Result<Found, Refusal> {
    those(call, |_| true)
}

fn those(call: &Call, is_wanted: impl Fn(&Session) -> bool) -> Result<Found, Refusal> {
    let (index, sessions) = call.app.store.read(|state| {
        let (index, sessions) = state.sessions.list();
        let wanted = sessions.filter(|session| is_wanted(session));
        (index, wanted.cloned().collect::<Vec<_>>())
    });
    let body = call.json_body(&sessions)?;
    Ok(Found { index, body })
}
