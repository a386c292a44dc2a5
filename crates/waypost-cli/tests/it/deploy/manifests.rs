//! Reads the manifests, and checks each document against the published type of its kind.

use std::fs;
use std::path::PathBuf;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{
    Container, Namespace, Pod, PodTemplateSpec, Service, ServiceAccount,
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The manifests of the stack.
pub(super) const BASE: &str = "kubernetes/base";

/// A path below the repository's directory `deploy`.
pub(super) fn deploy(path: &str) -> PathBuf {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy");
    PathBuf::from(root).join(path)
}

/// A document of a manifest. Some kinds are only checked against their type.
pub(super) enum Document {
    Deployment(Box<Deployment>),
    NetworkPolicy(NetworkPolicy),
    PodDisruptionBudget(PodDisruptionBudget),
    Role(Role),
    RoleBinding(RoleBinding),
    Service(Box<Service>),
    Other,
}

/// All documents of the files that the kustomization in a directory lists.
pub(super) fn documents(directory: &str) -> Vec<Document> {
    let kustomization = kustomization(directory);
    let listed = kustomization["resources"].as_array().unwrap().iter();
    let names = listed.map(|name| name.as_str().unwrap());
    names
        .filter(|name| name.ends_with(".yaml"))
        .flat_map(|name| {
            let path = deploy(directory).join(name);
            let text = fs::read_to_string(&path).unwrap();
            let all: Vec<Value> = serde_saphyr::from_multiple(&text)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert!(!all.is_empty(), "{} is empty", path.display());
            all.into_iter().map(move |document| {
                parse(&document).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
            })
        })
        .collect()
}

pub(super) fn kustomization(directory: &str) -> Value {
    let path = deploy(directory).join("kustomization.yaml");
    serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

pub(super) fn parse(document: &Value) -> Result<Document, String> {
    match document["kind"].as_str() {
        Some("Deployment") => typed(document, |it| Document::Deployment(Box::new(it))),
        Some("Namespace") => typed(document, |_: Namespace| Document::Other),
        Some("NetworkPolicy") => typed(document, Document::NetworkPolicy),
        Some("Pod") => typed(document, |_: Pod| Document::Other),
        Some("PodDisruptionBudget") => typed(document, Document::PodDisruptionBudget),
        Some("Role") => typed(document, Document::Role),
        Some("RoleBinding") => typed(document, Document::RoleBinding),
        Some("Service") => typed(document, |it| Document::Service(Box::new(it))),
        Some("ServiceAccount") => typed(document, |_: ServiceAccount| Document::Other),
        Some("StatefulSet") => typed(document, |_: StatefulSet| Document::Other),
        other => Err(format!("unexpected kind {other:?}")),
    }
}

/// Parses a document as `T`. Fields that `T` doesn't have are dropped, so the result is serialized
/// again and compared.
fn typed<T: DeserializeOwned + Serialize>(
    document: &Value,
    kind: impl Fn(T) -> Document,
) -> Result<Document, String> {
    let parsed: T = serde_json::from_value(document.clone()).map_err(|error| error.to_string())?;
    let serialized = serde_json::to_value(&parsed).map_err(|error| error.to_string())?;
    if serialized == *document {
        Ok(kind(parsed))
    } else {
        Err(format!("{document} is parsed as {serialized}"))
    }
}

impl Document {
    /// The name and pod template of a Deployment.
    pub(super) fn pod_template(&self) -> Option<(&str, &PodTemplateSpec)> {
        let Self::Deployment(deployment) = self else {
            return None;
        };
        let template = &deployment.spec.as_ref()?.template;
        Some((deployment.metadata.name.as_deref()?, template))
    }
}

/// Every container of the Deployments, with the name of its Deployment.
pub(super) fn containers(documents: &[Document]) -> impl Iterator<Item = (&str, &Container)> {
    documents
        .iter()
        .filter_map(Document::pod_template)
        .flat_map(|(name, template)| {
            let containers = template.spec.iter().flat_map(|spec| &spec.containers);
            containers.map(move |container| (name, container))
        })
}

/// The number of a container's port, given by number or name.
pub(super) fn port_number(container: &Container, port: &IntOrString) -> i32 {
    match port {
        IntOrString::Int(number) => *number,
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let port = ports.find(|port| port.name.as_deref() == Some(name));
            port.unwrap_or_else(|| panic!("no port {name:?}"))
                .container_port
        }
    }
}
