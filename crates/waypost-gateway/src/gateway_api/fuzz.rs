//! Objects of the Gateway API as JSON, for [`crate::fuzz`].

use std::collections::BTreeMap;

use data_encoding::BASE64;
use serde_json::{Value, json};

use super::objects::{CLASSES, GATEWAYS, HttpRoute, Metadata, Object, Objects};
use super::resolve::{StatusChange, resolve};
use super::secrets::{Secret, Secrets, certificate};
use super::{CONTROLLER, Settings};

/// Reads an HTTPRoute, attaches it to a Gateway and translates it.
pub(crate) fn translate_route(text: &[u8]) {
    let Ok(mut route) = serde_json::from_slice::<HttpRoute>(text) else {
        return;
    };
    let parent = json!({ "name": "gateway", "namespace": "shop" });
    route.spec.parent_refs = serde_json::from_value(json!([parent])).unwrap_or_default();
    let class = json!({
        "metadata": { "name": "waypost" }, "spec": { "controllerName": CONTROLLER },
    });
    let gateway = json!({
        "metadata": { "name": "gateway", "namespace": "shop" },
        "spec": { "gatewayClassName": "waypost", "listeners": [
            { "name": "http", "port": 80, "protocol": "HTTP", "allowedRoutes": { "namespaces": { "from": "All" } } },
        ] },
    });
    let objects = Objects {
        classes: vec![serde_json::from_value(class).unwrap_or_default()],
        gateways: vec![serde_json::from_value(gateway).unwrap_or_default()],
        routes: vec![route],
        ..Objects::default()
    };
    drop(resolve(&objects, &Secrets::new(), &settings()));
}

/// Reads all objects of a cluster, computes their status and writes it, once for a gateway with HTTP and once
/// with HTTPS. Asserts that no status is left to change: otherwise the gateway would write it again and again.
pub(crate) fn resolve_objects(text: &[u8]) {
    let Ok(mut objects) = serde_json::from_slice::<Objects>(text) else {
        return;
    };
    keep_one_of_each(&mut objects.classes);
    keep_one_of_each(&mut objects.gateways);
    keep_one_of_each(&mut objects.routes);
    for has_tls in [false, true] {
        let settings = Settings {
            has_tls,
            ..settings()
        };
        // As if each Secret had been read: before that, the status of the Gateway isn't written.
        let wanted = resolve(&objects, &Secrets::new(), &settings).secrets;
        let secrets = wanted.into_iter().map(|key| (key, Secret::default()));
        let secrets = secrets.collect();
        for change in resolve(&objects, &secrets, &settings).changes {
            match change.kind {
                CLASSES => apply(&change, &mut objects.classes),
                GATEWAYS => apply(&change, &mut objects.gateways),
                _ => apply(&change, &mut objects.routes),
            }
        }
        let again = resolve(&objects, &secrets, &settings).changes;
        assert!(again.is_empty(), "{again:?}");
    }
}

/// Reads a Secret. Asserts that an error contains no line of its certificate or key.
pub(crate) fn read_secret(text: &[u8]) {
    let Ok(secret) = serde_json::from_slice::<Value>(text) else {
        return;
    };
    let Err(problem) = certificate(&secret) else {
        return;
    };
    for entry in ["tls.crt", "tls.key"] {
        let encoded = secret["data"][entry].as_str().unwrap_or_default();
        let content = BASE64.decode(encoded.as_bytes()).unwrap_or_default();
        let content = String::from_utf8_lossy(&content);
        let lines = content.lines().map(str::trim);
        let shown = lines
            .filter(|line| line.len() >= 64)
            .find(|line| problem.contains(line));
        assert_eq!(shown, None, "{problem}");
    }
}

pub(super) fn settings() -> Settings {
    Settings {
        class: "waypost".into(),
        has_tls: false,
        has_files: false,
        port: 80,
        addresses: Vec::new(),
        namespace: "shop".into(),
        allows_external_names: false,
    }
}

/// As in a cluster, no two objects have the same name.
fn keep_one_of_each<T>(objects: &mut Vec<Object<T>>) {
    let by_key = objects
        .drain(..)
        .map(|object| (object.metadata.key(), object));
    let by_key: BTreeMap<_, _> = by_key.collect();
    objects.extend(by_key.into_values());
}

/// Applies a change like a merge patch. Its members are lists, which replace those in the status.
fn apply<T>(change: &StatusChange, objects: &mut [Object<T>]) {
    let is_meant = |metadata: &Metadata| metadata.key() == change.key;
    let object = objects.iter_mut().find(|it| is_meant(&it.metadata));
    let (Some(object), Some(members)) = (object, change.status.as_object()) else {
        return;
    };
    if !object.status.is_object() {
        object.status = Value::Object(serde_json::Map::new());
    }
    for (name, value) in members {
        object.status[name] = value.clone();
    }
}
