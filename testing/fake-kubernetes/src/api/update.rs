//! Replacing an object by another.

use std::sync::Arc;

use serde_json::{Value, json};

use super::create::{self, fit, is_dry_run, key_of, prune};
use super::form::Shown;
use crate::app::App;
use crate::http::{Call, Cause, Reply, Scope, Status};
use crate::kinds::Kind;
use crate::rules::{self, Circumstances};
use crate::store::{Object, State};

/// What an update may not change.
const FIXED: [&str; 5] = [
    "creationTimestamp",
    "deletionTimestamp",
    "generation",
    "namespace",
    "uid",
];

pub(super) async fn answer(app: &App, call: &Call, scope: &Scope) -> Result<Reply, Status> {
    let shown = Shown::of(call, scope.kind)?;
    let object = fit(call, scope, call.object()?)?;
    app.faults.etcd().await;
    let mut state = app.store.read();
    let object = replace(app, &mut state, scope.kind, object, is_dry_run(call))?;
    Ok(Reply::ok(shown.one(&object, true)))
}

/// Replaces an object as a client would that may do everything.
pub(crate) fn update_object(
    app: &App,
    kind: &'static Kind,
    mut object: Value,
) -> Result<Arc<Object>, Status> {
    prune(kind, &mut object, false)?;
    replace(app, &mut app.store.read(), kind, object, false)
}

/// Stores an object in the place of the one of its name. If nothing changes, nothing happens.
pub(super) fn replace(
    app: &App,
    state: &mut State,
    kind: &Kind,
    mut object: Value,
    is_dry_run: bool,
) -> Result<Arc<Object>, Status> {
    let key = key_of(&object);
    let current = state.get(kind, &key).cloned();
    let current = current.ok_or_else(|| Status::not_found(kind, &key.name))?;
    check_version(kind, &object, &current)?;
    let before = current.value();
    for field in FIXED {
        let kept = before["metadata"][field].clone();
        set_or_remove(&mut object["metadata"], field, kept);
    }
    if object["status"].is_null() {
        let status = before["status"].clone();
        set_or_remove(&mut object, "status", status);
    }
    let circumstances = Circumstances {
        before: Some(&before),
        allow_loopback: app.settings.allow_loopback,
        free_ip: None,
    };
    rules::admit(kind, &mut object, circumstances)?;
    object["metadata"]["resourceVersion"] = before["metadata"]["resourceVersion"].clone();
    if object == before {
        return Ok(current);
    }
    if kind.has_generation && !is_same_content(&object, &before) {
        let generation = before["metadata"]["generation"].as_u64().unwrap_or(0);
        object["metadata"]["generation"] = json!(generation + 1);
    }
    Ok(create::store(app, state, kind, object, is_dry_run))
}

/// Whether nothing but metadata differs; labels count.
fn is_same_content(one: &Value, other: &Value) -> bool {
    let [one, other] = [one, other].map(|object| {
        let labels = object["metadata"]["labels"].clone();
        let mut content = object.clone();
        content["metadata"] = labels;
        content
    });
    one == other
}

fn check_version(kind: &Kind, object: &Value, current: &Object) -> Result<(), Status> {
    let meta = &object["metadata"];
    let name = &current.key.name;
    let uid = meta["uid"].as_str().unwrap_or_default();
    if !uid.is_empty() && uid != current.uid {
        let why = format!(
            "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            current.uid
        );
        return Err(Status::conflict(kind, name, &why));
    }
    match meta["resourceVersion"].as_str().unwrap_or_default() {
        "" if kind.needs_version => Err(Status::invalid(
            kind,
            name,
            &[Cause::invalid(
                "metadata.resourceVersion",
                &json!(0),
                "must be specified for an update",
            )],
        )),
        "" => Ok(()),
        version if version == current.revision.to_string() => Ok(()),
        _ => Err(Status::conflict(
            kind,
            name,
            "the object has been modified; please apply your changes to the latest version and \
             try again",
        )),
    }
}

fn set_or_remove(object: &mut Value, field: &str, value: Value) {
    if let Some(map) = object.as_object_mut() {
        if value.is_null() {
            map.remove(field);
        } else {
            map.insert(field.to_owned(), value);
        }
    }
}
