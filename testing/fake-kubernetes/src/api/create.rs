//! Creating.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};

use super::form::Shown;
use crate::app::App;
use crate::http::{Call, Reply, Scope, Status};
use crate::kinds::Kind;
use crate::rules::{self, Circumstances, Mismatch};
use crate::store::{Key, Object, State};

/// The letters of generated names.
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

pub(super) async fn answer(app: &App, call: &Call, scope: &Scope) -> Result<Reply, Status> {
    let shown = Shown::of(call, scope.kind)?;
    let object = fit(call, scope, call.object()?)?;
    app.faults.etcd().await;
    let mut state = app.store.read();
    let object = prepare(app, &state, scope.kind, object)?;
    let object = store(app, &mut state, scope.kind, object, is_dry_run(call));
    let reply = Reply::bytes(
        StatusCode::CREATED,
        "application/json",
        shown.one(&object, true),
    );
    Ok(reply)
}

/// Creates an object as a client would that may do everything.
pub(crate) fn create_object(
    app: &App,
    kind: &'static Kind,
    mut object: Value,
) -> Result<Arc<Object>, Status> {
    prune(kind, &mut object, false)?;
    let mut state = app.store.read();
    let object = prepare(app, &state, kind, object)?;
    Ok(app.store.put(&mut state, kind, object))
}

/// Completes and checks a new object.
pub(super) fn prepare(
    app: &App,
    state: &State,
    kind: &Kind,
    mut object: Value,
) -> Result<Value, Status> {
    let meta = &mut object["metadata"];
    if !meta.is_object() {
        *meta = json!({});
    }
    if meta["resourceVersion"]
        .as_str()
        .is_some_and(|it| !it.is_empty())
    {
        return Err(Status::internal(
            "resourceVersion should not be set on objects to be created",
        ));
    }
    let prefix = meta["generateName"].as_str().unwrap_or_default();
    if meta["name"].as_str().unwrap_or_default().is_empty() && !prefix.is_empty() {
        let suffix: String = app.with_random(|random| {
            let letter = |_| char::from(LETTERS[random.usize(..LETTERS.len())]);
            (0..5).map(letter).collect()
        });
        meta["name"] = format!("{prefix}{suffix}").into();
    }
    let key = key_of(&object);
    if kind.is_namespaced {
        check_namespace(state, kind, &key)?;
    }
    if state.get(kind, &key).is_some() {
        return Err(Status::already_exists(kind, &key.name));
    }
    app.complete(kind, &mut object);
    let circumstances = Circumstances {
        before: None,
        allow_loopback: app.settings.allow_loopback,
        free_ip: (kind.plural == "services")
            .then(|| app.free_ip(state))
            .flatten(),
    };
    rules::admit(kind, &mut object, circumstances)?;
    Ok(object)
}

fn check_namespace(state: &State, kind: &Kind, key: &Key) -> Result<(), Status> {
    let Some(namespaces) = Kind::find("", "v1", "namespaces") else {
        return Ok(());
    };
    let Some(namespace) = state.get(namespaces, &Key::new("", &key.namespace)) else {
        return Err(Status::not_found(namespaces, &key.namespace));
    };
    if namespace.value()["status"]["phase"] == "Terminating" {
        let what = format!("{} {:?}", kind.qualified_plural(), key.name);
        let why = format!(
            "unable to create new content in namespace {} because it is being terminated",
            key.namespace
        );
        let refusal = Status::forbidden(&what, &why, Some(kind), &key.name);
        return Err(refusal.because_of_the_end_of(&key.namespace));
    }
    Ok(())
}

/// Stores an object, or shows what would be stored.
pub(super) fn store(
    app: &App,
    state: &mut State,
    kind: &Kind,
    object: Value,
    is_dry_run: bool,
) -> Arc<Object> {
    if is_dry_run {
        Object::new(object, state.revision())
    } else {
        app.store.put(state, kind, object)
    }
}

pub(super) fn is_dry_run(call: &Call) -> bool {
    call.query.get("dryRun") == "All"
}

/// Checks an object against the place that it is sent to.
pub(super) fn fit(call: &Call, scope: &Scope, mut object: Value) -> Result<Value, Status> {
    let kind = scope.kind;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (found, api_version) = (text(&object["kind"]), text(&object["apiVersion"]));
    if found.is_empty() {
        let message = format!("Object 'Kind' is missing in '{object}'");
        return Err(Status::bad_request(message));
    }
    if found != kind.name || api_version != kind.api_version() {
        return Err(Status::bad_request(format!(
            "{found} in version {api_version:?} cannot be handled as a {}",
            kind.name
        )));
    }
    prune(
        kind,
        &mut object,
        call.query.get("fieldValidation") == "Strict",
    )?;
    let meta = &mut object["metadata"];
    if !meta.is_object() {
        *meta = json!({});
    }
    if let Some(namespace) = &scope.namespace {
        let found = text(&meta["namespace"]);
        if !found.is_empty() && found != *namespace {
            return Err(Status::bad_request(
                "the namespace of the provided object does not match the namespace sent on the \
                 request",
            ));
        }
        meta["namespace"] = namespace.as_str().into();
    } else if let Some(meta) = meta.as_object_mut() {
        meta.remove("namespace");
    }
    if let Some(name) = &scope.name {
        let found = text(&meta["name"]);
        if !found.is_empty() && found != *name {
            return Err(Status::bad_request(format!(
                "the name of the object ({found}) does not match the name on the URL ({name})"
            )));
        }
        meta["name"] = name.as_str().into();
    }
    Ok(object)
}

/// Drops fields that the kind doesn't have; if the client is strict, that is an error.
pub(super) fn prune(kind: &Kind, object: &mut Value, is_strict: bool) -> Result<(), Status> {
    let unknown =
        rules::prune(kind, object).map_err(|Mismatch(message)| Status::bad_request(message))?;
    if is_strict && !unknown.is_empty() {
        let fields: Vec<_> = unknown
            .iter()
            .map(|field| format!("unknown field {field:?}"))
            .collect();
        return Err(Status::bad_request(format!(
            "{} in version {:?} cannot be handled as a {}: strict decoding error: {}",
            kind.name,
            kind.version,
            kind.name,
            fields.join(", ")
        )));
    }
    Ok(())
}

pub(super) fn key_of(object: &Value) -> Key {
    let meta = &object["metadata"];
    let text = |field: &str| meta[field].as_str().unwrap_or_default();
    Key::new(text("namespace"), text("name"))
}
