//! Changing an object by saying what is to be different.

use http::StatusCode;
use serde_json::Value;

use super::create::{self, fit, is_dry_run};
use super::form::Shown;
use super::{apply, merge, update};
use crate::app::App;
use crate::http::{Call, Reply, Scope, Status};

const MERGE: &str = "application/merge-patch+json";
const STRATEGIC: &str = "application/strategic-merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

pub(super) async fn answer(app: &App, call: &Call, scope: &Scope) -> Result<Reply, Status> {
    let shown = Shown::of(call, scope.kind)?;
    let patch = match call.content_type() {
        MERGE | STRATEGIC => call.json()?,
        APPLY => call.yaml()?,
        _ => {
            return Err(Status::unsupported_media(
                &[MERGE, STRATEGIC, APPLY].join(", "),
            ));
        }
    };
    app.faults.etcd().await;
    if call.content_type() == APPLY {
        return by_apply(app, call, scope, shown, patch);
    }
    let key = scope.key().unwrap_or_default();
    let mut state = app.store.read();
    let current = state.get(scope.kind, &key);
    let current = current.ok_or_else(|| Status::not_found(scope.kind, &key.name))?;
    let mut object = whole(scope, current.value());
    if let Some(meta) = object["metadata"].as_object_mut() {
        // A patch may name a version to insist on it; else it is for whatever there is.
        meta.remove("resourceVersion");
    }
    if call.content_type() == MERGE {
        merge::merge(&mut object, &patch);
    } else {
        merge::merge_strategically(&mut object, &patch);
    }
    let object = fit(call, scope, object)?;
    let object = update::replace(app, &mut state, scope.kind, object, is_dry_run(call))?;
    Ok(Reply::ok(shown.one(&object, true)))
}

/// Server-side apply.
fn by_apply(
    app: &App,
    call: &Call,
    scope: &Scope,
    shown: Shown,
    configuration: Value,
) -> Result<Reply, Status> {
    let manager = call.query.get("fieldManager");
    if manager.is_empty() {
        return Err(Status::bad_request(
            "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required \
             for apply patch",
        ));
    }
    let configuration = fit(call, scope, configuration)?;
    let key = scope.key().unwrap_or_default();
    let mut state = app.store.read();
    match state.get(scope.kind, &key).map(|it| it.value()) {
        None => {
            let object = apply::first(scope.kind, &configuration, manager);
            let object = create::prepare(app, &state, scope.kind, object)?;
            let object = create::store(app, &mut state, scope.kind, object, is_dry_run(call));
            let body = shown.one(&object, true);
            Ok(Reply::bytes(StatusCode::CREATED, "application/json", body))
        }
        Some(current) => {
            let force = call.query.is_set("force");
            let object = apply::again(scope.kind, current, &configuration, manager, force)?;
            let object = update::replace(app, &mut state, scope.kind, object, is_dry_run(call))?;
            Ok(Reply::ok(shown.one(&object, true)))
        }
    }
}

/// With what says what it is.
fn whole(scope: &Scope, mut object: Value) -> Value {
    object["kind"] = scope.kind.name.into();
    object["apiVersion"] = scope.kind.api_version().into();
    object
}
