//! Deleting.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};

use super::create::is_dry_run;
use super::form::Shown;
use super::options;
use crate::app::{App, now};
use crate::http::{Call, Reply, Scope, Status};
use crate::kinds::{KINDS, Kind};
use crate::store::{Key, Object, State};

pub(super) async fn one(app: &Arc<App>, call: &Call, scope: &Scope) -> Result<Reply, Status> {
    let kind = scope.kind;
    let conditions = conditions(call)?;
    app.faults.etcd().await;
    let key = scope.key().unwrap_or_default();
    let mut state = app.store.read();
    let current = state.get(kind, &key).cloned();
    let current = current.ok_or_else(|| Status::not_found(kind, &key.name))?;
    check(kind, &conditions, &current)?;
    if kind.plural == "namespaces" {
        let namespace = terminate(app, &mut state, kind, &current);
        return Ok(Reply::ok(Shown::of(call, kind)?.one(&namespace, true)));
    }
    if !is_dry_run(call) {
        app.remove(&mut state, kind, &key);
    }
    let mut details = json!({ "name": key.name, "kind": kind.plural, "uid": current.uid });
    if !kind.group.is_empty() {
        details["group"] = kind.group.into();
    }
    let success = json!({
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": details,
    });
    Ok(Reply::json(StatusCode::OK, &success))
}

/// Deletes an object as a client would that may do everything; false if there is none.
pub(crate) fn delete_object(app: &Arc<App>, kind: &Kind, key: &Key) -> bool {
    let mut state = app.store.read();
    let Some(current) = state.get(kind, key).cloned() else {
        return false;
    };
    match kind.plural {
        "namespaces" => drop(terminate(app, &mut state, kind, &current)),
        _ => drop(app.remove(&mut state, kind, key)),
    }
    true
}

/// All that are selected; the answer lists them.
pub(super) async fn collection(app: &App, call: &Call, scope: &Scope) -> Result<Reply, Status> {
    let kind = scope.kind;
    if kind.plural == "namespaces" {
        return Err(Status::method_not_allowed());
    }
    let shown = Shown::of(call, kind)?;
    let selector = options::selector(call)?;
    app.faults.etcd().await;
    let mut state = app.store.read();
    let namespace = scope.namespace.as_deref();
    let selected: Vec<Arc<Object>> = state
        .objects(kind, namespace)
        .filter(|it| selector.matches(it))
        .cloned()
        .collect();
    if !is_dry_run(call) {
        for object in &selected {
            app.remove(&mut state, kind, &object.key);
        }
    }
    let meta = json!({ "resourceVersion": state.revision().to_string() });
    Ok(Reply::ok(
        shown.list(selected.iter().map(Arc::as_ref), meta),
    ))
}

/// The preconditions of a deletion.
fn conditions(call: &Call) -> Result<Value, Status> {
    if call.body.is_empty() {
        return Ok(Value::Null);
    }
    let mut options = call.object()?;
    Ok(options["preconditions"].take())
}

fn check(kind: &Kind, conditions: &Value, current: &Object) -> Result<(), Status> {
    let name = &current.key.name;
    if let Some(wanted) = conditions["uid"].as_str().filter(|it| *it != current.uid) {
        return Err(Status::conflict(
            kind,
            name,
            &format!(
                "the UID in the precondition ({wanted}) does not match the UID in record ({}). The \
             object might have been deleted and then recreated",
                current.uid
            ),
        ));
    }
    let revision = current.revision.to_string();
    let wanted = conditions["resourceVersion"].as_str();
    if let Some(wanted) = wanted.filter(|it| *it != revision) {
        return Err(Status::conflict(
            kind,
            name,
            &format!(
                "the ResourceVersion in the precondition ({wanted}) does not match the \
             ResourceVersion in record ({revision}). The object might have been modified"
            ),
        ));
    }
    Ok(())
}

/// A namespace goes after all that is in it, and takes its time.
fn terminate(app: &Arc<App>, state: &mut State, kind: &Kind, current: &Object) -> Arc<Object> {
    let mut namespace = current.value();
    namespace["metadata"]["deletionTimestamp"] = now().into();
    namespace["status"]["phase"] = "Terminating".into();
    let name = current.key.name.clone();
    let app_then = Arc::clone(app);
    tokio::spawn(async move {
        tokio::time::sleep(app_then.settings.namespace_deletion).await;
        empty(&app_then, &name);
    });
    app.store.put(state, kind, namespace)
}

fn empty(app: &App, namespace: &str) {
    let mut state = app.store.read();
    for kind in KINDS.iter().filter(|it| it.is_namespaced) {
        let keys: Vec<Key> = state
            .objects(kind, Some(namespace))
            .map(|it| it.key.clone())
            .collect();
        for key in keys {
            app.store.remove(&mut state, kind, &key);
        }
    }
    if let Some(kind) = Kind::find("", "v1", "namespaces") {
        app.store.remove(&mut state, kind, &Key::new("", namespace));
    }
}
