//! Reading: one object, or many, now or as they were.

use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use serde_json::{Value, json};

use super::form::Shown;
use super::options::{self, EXACT};
use crate::app::App;
use crate::http::{Call, Reply, Scope, Status};
use crate::store::{Key, Object, within};

/// One object. Without a revision it is read from etcd.
pub(super) async fn get(app: &App, call: &Call, scope: &Scope) -> Result<Reply, Status> {
    let shown = Shown::of(call, scope.kind)?;
    match options::revision(call)? {
        None => app.faults.etcd().await,
        Some(revision) => not_before(app, revision).await?,
    }
    let key = scope.key().unwrap_or_default();
    let object = app.store.read().get(scope.kind, &key).cloned();
    let object = object.ok_or_else(|| Status::not_found(scope.kind, &key.name))?;
    Ok(Reply::ok(shown.one(&object, true)))
}

/// Where a list goes on.
struct Token {
    /// None is as things are now.
    revision: Option<u64>,
    start: Key,
}

/// Many objects.
pub(super) async fn list(app: &App, call: &Call, scope: &Scope) -> Result<Reply, Status> {
    options::check_list(call)?;
    let shown = Shown::of(call, scope.kind)?;
    let selector = options::selector(call)?;
    let revision = options::revision(call)?;
    let limit = call.query.number("limit")?.filter(|it| *it > 0);
    let token = match call.query.get("continue") {
        "" => None,
        text => Some(Token::parse(text)?),
    };
    let exact = call.query.get("resourceVersionMatch") == EXACT;
    let (at, limit) = match (&token, revision) {
        (Some(token), _) => {
            if app.faults.is_continue_expired() && token.revision.is_some() {
                return Err(expired(token));
            }
            (token.revision, limit)
        }
        (None, None) => {
            app.faults.etcd().await;
            (None, limit)
        }
        // From the cache, whatever it has; then a limit doesn't count.
        (None, Some(0)) => (None, None),
        (None, Some(revision)) => {
            not_before(app, revision).await?;
            let is_exact =
                exact || (limit.is_some() && call.query.get("resourceVersionMatch").is_empty());
            (is_exact.then_some(revision), limit)
        }
    };

    let state = app.store.read();
    let namespace = scope.namespace.as_deref();
    let (all, revision) = match at {
        Some(at) if at != state.revision() => {
            let objects = state.objects_at(scope.kind, at);
            let objects = objects.ok_or_else(|| match &token {
                Some(token) => expired(token),
                None => Status::expired_list(),
            })?;
            (within(&objects, namespace).cloned().collect(), at)
        }
        _ => {
            let objects: Vec<Arc<Object>> = state.objects(scope.kind, namespace).cloned().collect();
            (objects, state.revision())
        }
    };
    drop(state);

    let start = token.map(|it| it.start).unwrap_or_default();
    let mut found = all
        .iter()
        .filter(|it| it.key >= start && selector.matches(it));
    let most = limit.and_then(|it| usize::try_from(it).ok());
    let taken: Vec<&Object> = found
        .by_ref()
        .take(most.unwrap_or(usize::MAX))
        .map(Arc::as_ref)
        .collect();
    let mut meta = json!({ "resourceVersion": revision.to_string() });
    if let Some(next) = found.next() {
        let token = Token {
            revision: Some(revision),
            start: next.key.clone(),
        };
        meta["continue"] = token.write().into();
        if selector.is_empty() {
            meta["remainingItemCount"] = (found.count() + 1).into();
        }
    }
    Ok(Reply::ok(shown.list(taken.into_iter(), meta)))
}

/// Waits a moment for a revision that is yet to come.
pub(super) async fn not_before(app: &App, revision: u64) -> Result<(), Status> {
    let current = || app.store.read().revision();
    let arrives = async {
        while current() < revision {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(app.settings.future_wait, arrives)
        .await
        .map_err(|_| Status::too_large_revision(revision, current()))
}

/// A list that can be gone on with only as things are now.
fn expired(token: &Token) -> Status {
    let proceed = Token {
        revision: None,
        start: token.start.clone(),
    };
    Status::expired_continue(proceed.write())
}

impl Token {
    fn write(&self) -> String {
        let revision = self.revision.map_or(-1, u64::cast_signed);
        let Key { namespace, name } = &self.start;
        let json = json!({
            "v": "meta.k8s.io/v1", "rv": revision, "start": format!("{namespace}/{name}"),
        });
        BASE64URL_NOPAD.encode(json.to_string().as_bytes())
    }

    fn parse(text: &str) -> Result<Self, Status> {
        let invalid = || Status::bad_request("continue key is not valid");
        let json = BASE64URL_NOPAD
            .decode(text.as_bytes())
            .map_err(|_| invalid())?;
        let json: Value = serde_json::from_slice(&json).map_err(|_| invalid())?;
        let start = json["start"].as_str().ok_or_else(invalid)?;
        let (namespace, name) = start.split_once('/').ok_or_else(invalid)?;
        let revision = json["rv"].as_i64().ok_or_else(invalid)?;
        Ok(Self {
            revision: u64::try_from(revision).ok(),
            start: Key::new(namespace, name),
        })
    }
}
