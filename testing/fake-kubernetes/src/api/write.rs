//! Creating, replacing and deleting objects.

use std::sync::Arc;

use http::StatusCode;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::http::request::{ApiRequest, Scope};
use crate::http::response::{self, Response};
use crate::http::status::Status;

pub(super) async fn create(
    cluster: &Cluster,
    scope: &Scope,
    request: &ApiRequest,
) -> Result<Response, Status> {
    let object = object_for(scope, request)?;
    cluster.faults.etcd().await;
    let object = cluster.create(scope.kind, object)?;
    let json = object.with_kind(scope.kind);
    Ok(response::json(StatusCode::CREATED, json))
}

pub(super) async fn update(
    cluster: &Cluster,
    scope: &Scope,
    request: &ApiRequest,
) -> Result<Response, Status> {
    let object = object_for(scope, request)?;
    cluster.faults.etcd().await;
    let object = cluster.replace(scope.kind, object)?;
    Ok(response::json(StatusCode::OK, object.with_kind(scope.kind)))
}

/// Applies a JSON merge patch to the status of an object.
pub(super) async fn patch_status(
    cluster: &Cluster,
    scope: &Scope,
    request: &ApiRequest,
) -> Result<Response, Status> {
    if request.content_type != "application/merge-patch+json" {
        return Err(Status::unsupported("a patch of this type"));
    }
    let patch = request.json()?;
    cluster.faults.etcd().await;
    let object = cluster.patch_status(scope.kind, &scope.key(), &patch)?;
    Ok(response::json(StatusCode::OK, object.with_kind(scope.kind)))
}

pub(super) async fn delete(
    cluster: &Arc<Cluster>,
    scope: &Scope,
    request: &ApiRequest,
) -> Result<Response, Status> {
    let options = request.json()?;
    let version = options["preconditions"]["resourceVersion"].as_str();
    cluster.faults.etcd().await;
    cluster.delete(scope.kind, &scope.key(), version)?;
    Ok(response::ok(&json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
    })))
}

/// The object in the body, whose namespace and name must be those of the path.
fn object_for(scope: &Scope, request: &ApiRequest) -> Result<Value, Status> {
    let mut object = request.json()?;
    let meta = &mut object["metadata"];
    let expected = [
        (
            "namespace",
            Some(&*scope.namespace).filter(|it| !it.is_empty()),
        ),
        ("name", scope.name.as_deref()),
    ];
    for (field, expected) in expected {
        let Some(expected) = expected else { continue };
        if meta[field].as_str().is_some_and(|it| it != expected) {
            return Err(Status::bad_request(format!(
                "the {field} of the provided object does not match the {field} sent on the request"
            )));
        }
        meta[field] = expected.into();
    }
    Ok(object)
}
