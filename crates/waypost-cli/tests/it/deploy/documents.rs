//! Reads the manifests, each document held to the published type of its kind.

use std::fs;
use std::path::PathBuf;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{
    Container, Namespace, Pod, PodTemplateSpec, Service, ServiceAccount,
};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// The folder `deploy` of the repository.
pub(super) fn deploy(path: &str) -> PathBuf {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy");
    PathBuf::from(root).join(path)
}

/// A document of a manifest. Some kinds are only held to their type.
pub(super) enum Document {
    Deployment(Box<Deployment>),
    NetworkPolicy(NetworkPolicy),
    PodDisruptionBudget(PodDisruptionBudget),
    Role(Role),
    RoleBinding(RoleBinding),
    Service(Box<Service>),
    Other,
}

/// All documents of the files that the kustomization of a folder lists.
pub(super) fn documents(folder: &str) -> Vec<Document> {
    let kustomization = kustomization(folder);
    let listed = kustomization["resources"].as_array().unwrap().iter();
    let names = listed.map(|name| name.as_str().unwrap());
    names
        .filter(|name| name.ends_with(".yaml"))
        .flat_map(|name| {
            let path = deploy(folder).join(name);
            let text = fs::read_to_string(&path).unwrap();
            let all: Vec<Value> = serde_saphyr::from_multiple(&text)
                .unwrap_or_else(|fault| panic!("{}: {fault}", path.display()));
            assert!(!all.is_empty(), "{} is empty", path.display());
            all.into_iter().map(move |document| {
                read(&document).unwrap_or_else(|fault| panic!("{}: {fault}", path.display()))
            })
        })
        .collect()
}

pub(super) fn kustomization(folder: &str) -> Value {
    let path = deploy(folder).join("kustomization.yaml");
    serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

pub(super) fn read(document: &Value) -> Result<Document, String> {
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
        other => Err(format!("a kind that is not expected here: {other:?}")),
    }
}

/// A field that the type doesn't know is lost when it is read, and missed when it is written again.
fn typed<T: DeserializeOwned + Serialize>(
    document: &Value,
    kind: impl Fn(T) -> Document,
) -> Result<Document, String> {
    let read: T = serde_json::from_value(document.clone()).map_err(|fault| fault.to_string())?;
    let again = serde_json::to_value(&read).map_err(|fault| fault.to_string())?;
    match again == *document {
        true => Ok(kind(read)),
        false => Err(format!("{document} is understood as {again}")),
    }
}

impl Document {
    /// The name of a deployment and its pods, if it is one.
    pub(super) fn pods(&self) -> Option<(&str, &PodTemplateSpec)> {
        let Self::Deployment(deployment) = self else {
            return None;
        };
        let template = &deployment.spec.as_ref()?.template;
        Some((deployment.metadata.name.as_deref()?, template))
    }
}

/// Every container of these documents, with its workload's name.
pub(super) fn containers(documents: &[Document]) -> impl Iterator<Item = (&str, &Container)> {
    documents
        .iter()
        .filter_map(Document::pods)
        .flat_map(|(name, template)| {
            let containers = template.spec.iter().flat_map(|spec| &spec.containers);
            containers.map(move |container| (name, container))
        })
}
