//! What the API server makes of an object before it is stored: defaults, and what is refused.

mod endpoint_slice;
mod names;
mod service;
mod shape;

use serde_json::Value;

use crate::http::{Cause, Status};
use crate::kinds::Kind;
use names::Form;
pub(crate) use shape::{Mismatch, prune};

/// What was there before, and what a cluster may be told to allow.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Circumstances<'a> {
    /// The object that is to be replaced.
    pub before: Option<&'a Value>,
    /// Whether endpoints may be at loopback addresses.
    pub allow_loopback: bool,
    /// An address for a service that needs one.
    pub free_ip: Option<std::net::Ipv4Addr>,
}

/// Fills in what is left out and refuses what can't be. `object` has been pruned.
pub(crate) fn admit(
    kind: &Kind,
    object: &mut Value,
    circumstances: Circumstances<'_>,
) -> Result<(), Status> {
    let mut causes = names::check_metadata(object, name_form(kind));
    match kind.plural {
        "endpointslices" => {
            endpoint_slice::set_defaults(object);
            endpoint_slice::check(object, circumstances, &mut causes);
        }
        "services" => {
            service::set_defaults(object, circumstances);
            service::check(object, circumstances, &mut causes);
        }
        "namespaces" => namespace(object),
        "rolebindings" | "clusterrolebindings" => binding(object, circumstances, &mut causes),
        _ => {}
    }
    if causes.is_empty() {
        return Ok(());
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default();
    Err(Status::invalid(kind, name, &causes))
}

fn name_form(kind: &Kind) -> Form {
    match kind.plural {
        "services" => Form::Label1035,
        "namespaces" => Form::Label,
        "endpointslices" | "pods" | "serviceaccounts" | "leases" => Form::Subdomain,
        _ => Form::PathSegment,
    }
}

fn namespace(object: &mut Value) {
    let name = object["metadata"]["name"].clone();
    object["metadata"]["labels"]["kubernetes.io/metadata.name"] = name;
    if object["spec"]["finalizers"].is_null() {
        object["spec"]["finalizers"] = ["kubernetes"].as_slice().into();
    }
    if object["status"]["phase"].is_null() {
        object["status"]["phase"] = "Active".into();
    }
}

fn binding(object: &mut Value, circumstances: Circumstances<'_>, causes: &mut Vec<Cause>) {
    const RBAC: &str = "rbac.authorization.k8s.io";
    let role = &mut object["roleRef"];
    if role["apiGroup"].as_str().unwrap_or_default().is_empty() {
        role["apiGroup"] = RBAC.into();
    }
    if role["name"].as_str().unwrap_or_default().is_empty() {
        causes.push(Cause::required("roleRef.name", ""));
    }
    if let Some(before) = circumstances.before
        && before["roleRef"] != *role
    {
        causes.push(Cause::invalid("roleRef", role, "cannot change roleRef"));
    }
    for subject in object["subjects"].as_array_mut().into_iter().flatten() {
        if subject["apiGroup"].is_null() && subject["kind"] != "ServiceAccount" {
            subject["apiGroup"] = RBAC.into();
        }
    }
}
