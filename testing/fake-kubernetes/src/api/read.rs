//! Reading one object, or a list of them.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};

use super::options::Options;
use crate::cluster::Cluster;
use crate::http::request::Scope;
use crate::http::response::{self, Response};
use crate::http::status::Status;
use crate::kind::Kind;
use crate::store::object::Object;

/// One object, read from etcd.
pub(super) async fn get(cluster: &Cluster, scope: &Scope) -> Result<Response, Status> {
    cluster.faults.etcd().await;
    let key = scope.key();
    let object = cluster.store().get(scope.kind, &key).cloned();
    let object = object.ok_or_else(|| Status::not_found(scope.kind, &key.name))?;
    Ok(response::json(StatusCode::OK, object.with_kind(scope.kind)))
}

/// The current objects: read from the watch cache at resource version 0, otherwise from etcd. If there
/// are more than the limit, the rest can't be listed: a list is never continued, as on a server that
/// compacts its history at once.
pub(super) async fn list(
    cluster: &Cluster,
    scope: &Scope,
    options: &Options,
    wants_metadata: bool,
) -> Result<Response, Status> {
    if options.is_continued {
        return Err(Status::expired_continue());
    }
    let limit = match options.revision {
        None => {
            cluster.faults.etcd().await;
            options.limit.filter(|it| *it > 0)
        }
        // The API server ignores the limit of a list from the watch cache.
        Some(0) => None,
        Some(_) => return Err(Status::unsupported("a list at a resource version")),
    };
    let (objects, revision) = {
        let store = cluster.store();
        let objects = store.objects(scope.kind, &scope.namespace);
        let objects = objects.filter(|it| options.selector.matches(it));
        let objects: Vec<Arc<Object>> = objects.cloned().collect();
        (objects, store.revision())
    };
    let count = limit.map_or(objects.len(), |it| it.min(objects.len()));
    let mut meta = json!({ "resourceVersion": revision.to_string() });
    if count < objects.len() {
        meta["continue"] = "expired".into();
    }
    Ok(if wants_metadata {
        response::ok(&metadata_list(&objects[..count], &meta))
    } else {
        let list = whole_list(scope.kind, &objects[..count], &meta);
        response::json(StatusCode::OK, list)
    })
}

fn whole_list(kind: Kind, objects: &[Arc<Object>], meta: &Value) -> Vec<u8> {
    let (name, api_version) = (kind.name(), kind.api_version());
    let items: Vec<&[u8]> = objects.iter().map(|it| &*it.json).collect();
    let mut list = format!(
        r#"{{"kind":"{name}List","apiVersion":"{api_version}","metadata":{meta},"items":["#
    )
    .into_bytes();
    list.extend_from_slice(&items.join(&b','));
    list.extend_from_slice(b"]}");
    list
}

fn metadata_list(objects: &[Arc<Object>], meta: &Value) -> Value {
    const META: &str = "meta.k8s.io/v1";
    let items = objects.iter().map(|object| {
        json!({
            "kind": "PartialObjectMetadata",
            "apiVersion": META,
            "metadata": object.value()["metadata"],
        })
    });
    json!({
        "kind": "PartialObjectMetadataList",
        "apiVersion": META,
        "metadata": meta,
        "items": items.collect::<Value>(),
    })
}
