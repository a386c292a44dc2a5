//! What there is: groups, versions, resources, and as much of OpenAPI as kubectl asks for.

use std::collections::BTreeMap;

use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::http::{Call, Form, Reply, Status};
use crate::kinds::{KINDS, Kind, group_version};

const VERBS: [&str; 8] = [
    "create",
    "delete",
    "deletecollection",
    "get",
    "list",
    "patch",
    "update",
    "watch",
];
const AUTHORIZATION: &str = "authorization.k8s.io";
const REVIEWS: [(&str, &str); 2] = [
    ("selfsubjectaccessreviews", "SelfSubjectAccessReview"),
    ("selfsubjectrulesreviews", "SelfSubjectRulesReview"),
];
const DISCOVERY_TYPE: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

pub(super) fn answer(call: &Call) -> Option<Result<Reply, Status>> {
    let parts: Vec<&str> = call.path.split('/').filter(|it| !it.is_empty()).collect();
    let json = match parts.as_slice() {
        ["api"] | ["apis"] if call.form() == Ok(Form::Discovery) => {
            let body = aggregated(parts[0] == "api").to_string();
            return Some(Ok(Reply::bytes(StatusCode::OK, DISCOVERY_TYPE, body)));
        }
        ["api"] => json!({ "kind": "APIVersions", "versions": ["v1"] }),
        ["apis"] => json!({
            "kind": "APIGroupList",
            "apiVersion": "v1",
            "groups": groups().keys().filter(|it| !it.is_empty()).map(|it| group(it))
                .collect::<Value>(),
        }),
        ["api", "v1"] => resource_list("", "v1")?,
        ["apis", name] if groups().contains_key(name) => {
            let mut group = group(name);
            group["kind"] = "APIGroup".into();
            group["apiVersion"] = "v1".into();
            group
        }
        ["apis", name, version] => resource_list(name, version)?,
        ["openapi", "v3"] => openapi_index(),
        ["openapi", "v3", "api", "v1"] => openapi(""),
        ["openapi", "v3", "apis", name, "v1"] => openapi(name),
        _ => return None,
    };
    Some(Ok(Reply::json(StatusCode::OK, &json)))
}

/// The groups and their kinds.
fn groups() -> BTreeMap<&'static str, Vec<&'static Kind>> {
    let mut groups: BTreeMap<&str, Vec<&Kind>> = BTreeMap::new();
    groups.insert(AUTHORIZATION, Vec::new());
    for kind in &KINDS {
        groups.entry(kind.group).or_default().push(kind);
    }
    groups
}

fn group(name: &str) -> Value {
    let version = json!({ "groupVersion": group_version(name, "v1"), "version": "v1" });
    json!({ "name": name, "versions": [version], "preferredVersion": version })
}

fn resource_list(group: &str, version: &str) -> Option<Value> {
    let kinds = groups().remove(group).filter(|_| version == "v1")?;
    let mut resources: Vec<Value> = kinds.into_iter().map(resource).collect();
    if group == AUTHORIZATION {
        resources.extend(REVIEWS.iter().map(|(plural, kind)| {
            json!({
                "name": plural,
                "singularName": kind.to_lowercase(),
                "namespaced": false,
                "kind": kind,
                "verbs": ["create"],
            })
        }));
    }
    Some(json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version(group, version),
        "resources": resources,
    }))
}

fn resource(kind: &Kind) -> Value {
    let mut resource = json!({
        "name": kind.plural,
        "singularName": kind.singular,
        "namespaced": kind.is_namespaced,
        "kind": kind.name,
        "verbs": VERBS,
        "storageVersionHash": "",
    });
    extend(&mut resource, kind);
    resource
}

fn extend(resource: &mut Value, kind: &Kind) {
    if !kind.short_names.is_empty() {
        resource["shortNames"] = json!(kind.short_names);
    }
    if !kind.categories.is_empty() {
        resource["categories"] = json!(kind.categories);
    }
}

/// Everything in one answer.
fn aggregated(core: bool) -> Value {
    let items: Vec<Value> = groups()
        .into_iter()
        .filter(|(name, _)| name.is_empty() == core)
        .map(|(name, kinds)| {
            let mut resources: Vec<Value> = kinds
                .into_iter()
                .map(|kind| {
                    let mut resource = aggregated_resource(
                        (kind.group, kind.plural, kind.singular, kind.name),
                        kind.is_namespaced,
                        &VERBS,
                    );
                    extend(&mut resource, kind);
                    resource
                })
                .collect();
            if name == AUTHORIZATION {
                resources.extend(REVIEWS.iter().map(|(plural, kind)| {
                    let singular = kind.to_lowercase();
                    aggregated_resource((name, plural, &singular, kind), false, &["create"])
                }));
            }
            json!({
                "metadata": { "name": name },
                "versions": [{ "version": "v1", "resources": resources, "freshness": "Current" }],
            })
        })
        .collect();
    json!({
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    })
}

fn aggregated_resource(
    (group, plural, singular, kind): (&str, &str, &str, &str),
    is_namespaced: bool,
    verbs: &[&str],
) -> Value {
    json!({
        "resource": plural,
        "singularResource": singular,
        "responseKind": { "group": group, "version": "v1", "kind": kind },
        "scope": if is_namespaced { "Namespaced" } else { "Cluster" },
        "verbs": verbs,
    })
}

fn openapi_index() -> Value {
    let paths: Map<String, Value> = groups()
        .keys()
        .map(|name| {
            let path = root(name);
            let url = format!("/openapi/v3/{path}");
            (path, json!({ "serverRelativeURL": url }))
        })
        .collect();
    json!({ "paths": paths })
}

fn root(group: &str) -> String {
    if group.is_empty() {
        "api/v1".to_owned()
    } else {
        format!("apis/{group}/v1")
    }
}

/// Only that each kind can be patched, and that the server checks fields: with that kubectl
/// leaves it to the server.
fn openapi(group: &str) -> Value {
    let kinds = groups().remove(group).unwrap_or_default();
    let paths: Map<String, Value> = kinds
        .into_iter()
        .map(|kind| {
            let within = if kind.is_namespaced {
                "/namespaces/{namespace}"
            } else {
                ""
            };
            let path = format!("/{}{within}/{}/{{name}}", root(group), kind.plural);
            let parameter = json!({
                "name": "fieldValidation", "in": "query", "schema": { "type": "string" },
            });
            let patch = json!({
                "operationId": format!("patch{}", kind.name),
                "parameters": [parameter],
                "responses": {},
                "x-kubernetes-action": "patch",
                "x-kubernetes-group-version-kind": {
                    "group": kind.group, "version": kind.version, "kind": kind.name,
                },
            });
            (path, json!({ "patch": patch }))
        })
        .collect();
    json!({
        "openapi": "3.0.0",
        "info": { "title": "Kubernetes", "version": "v1.36.0" },
        "paths": paths,
    })
}
