//! The objects of the API, as far as they concern us. Whatever may be absent may also be `null`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

/// A kind of object that is listed and watched.
pub(super) trait Object: DeserializeOwned + PartialEq + Send + Sync + 'static {
    /// Where the API has it, up to the namespaces.
    const API: &str;
    /// Its name in paths and in rights.
    const PLURAL: &str;

    fn metadata(&self) -> &Metadata;

    /// Where those of a namespace are.
    fn path(namespace: &str) -> String {
        format!("{}/namespaces/{namespace}/{}", Self::API, Self::PLURAL)
    }
}

pub(super) type Labels = BTreeMap<Box<str>, Box<str>>;

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Metadata {
    pub(super) name: Arc<str>,
    pub(super) uid: Box<str>,
    pub(super) resource_version: Box<str>,
    pub(super) labels: Option<Labels>,
    pub(super) annotations: Option<Labels>,
}

impl Metadata {
    pub(super) fn label(&self, key: &str) -> Option<&str> {
        Some(self.labels.as_ref()?.get(key)?)
    }

    pub(super) fn annotation(&self, key: &str) -> Option<&str> {
        Some(self.annotations.as_ref()?.get(key)?)
    }
}

/// The answer to a LIST.
#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
pub(super) struct List<T> {
    pub(super) metadata: ListMetadata,
    pub(super) items: Option<Vec<T>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListMetadata {
    pub(super) resource_version: Box<str>,
}

/// The label of a slice that says which Service it belongs to.
pub(super) const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// Some of the endpoints of a Service (`discovery.k8s.io/v1`).
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Slice {
    pub(super) metadata: Metadata,
    pub(super) address_type: Box<str>,
    pub(super) endpoints: Option<Vec<Endpoint>>,
    pub(super) ports: Option<Vec<SlicePort>>,
}

impl Slice {
    /// The Service that the slice belongs to.
    pub(super) fn service(&self) -> Option<&str> {
        self.metadata.label(SERVICE_NAME)
    }

    pub(super) fn endpoints(&self) -> &[Endpoint] {
        self.endpoints.as_deref().unwrap_or_default()
    }
}

#[derive(Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Endpoint {
    pub(super) addresses: Option<Vec<Box<str>>>,
    pub(super) conditions: Option<Conditions>,
    pub(super) target_ref: Option<TargetRef>,
    pub(super) hostname: Option<Box<str>>,
    pub(super) node_name: Option<Box<str>>,
    pub(super) zone: Option<Box<str>>,
    pub(super) hints: Option<Hints>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default)]
pub(super) struct Conditions {
    pub(super) ready: Option<bool>,
    pub(super) serving: Option<bool>,
    pub(super) terminating: Option<bool>,
}

#[derive(Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default)]
pub(super) struct TargetRef {
    pub(super) kind: Option<Box<str>>,
    pub(super) namespace: Option<Box<str>>,
    pub(super) name: Option<Box<str>>,
}

#[derive(Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct Hints {
    pub(super) for_zones: Option<Vec<ForZone>>,
}

#[derive(Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default)]
pub(super) struct ForZone {
    pub(super) name: Box<str>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct SlicePort {
    pub(super) name: Option<Box<str>>,
    #[serde(deserialize_with = "port_number")]
    pub(super) port: Option<u16>,
    pub(super) protocol: Option<Box<str>>,
    pub(super) app_protocol: Option<Box<str>>,
}

impl Object for Slice {
    const API: &str = "/apis/discovery.k8s.io/v1";
    const PLURAL: &str = "endpointslices";

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(super) struct Service {
    pub(super) metadata: Metadata,
    pub(super) spec: ServiceSpec,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ServiceSpec {
    pub(super) r#type: Option<Box<str>>,
    pub(super) external_name: Option<Box<str>>,
    #[serde(rename = "clusterIP")]
    pub(super) cluster_ip: Option<Box<str>>,
    pub(super) ip_families: Option<Vec<Box<str>>>,
    pub(super) ports: Option<Vec<ServicePort>>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(super) struct ServicePort {
    pub(super) name: Option<Box<str>>,
    #[serde(deserialize_with = "port_number")]
    pub(super) port: Option<u16>,
    pub(super) protocol: Option<Box<str>>,
    pub(super) target_port: Option<TargetPort>,
    pub(super) app_protocol: Option<Box<str>>,
}

/// A port of the pod by its number, or by the name that the pod gives it.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub(super) enum TargetPort {
    Number(#[serde(deserialize_with = "port_number")] Option<u16>),
    Name(Box<str>),
}

/// The API server takes any number of 32 bits for the port of a slice. One that is no port is as
/// good as none, and spoils nothing else of the list that it is in.
fn port_number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u16>, D::Error> {
    let number = Option::<i64>::deserialize(from)?;
    let number = number.and_then(|number| u16::try_from(number).ok());
    Ok(number.filter(|number| *number != 0))
}

impl Service {
    pub(super) fn ports(&self) -> &[ServicePort] {
        self.spec.ports.as_deref().unwrap_or_default()
    }

    /// The name that an `ExternalName` Service stands for.
    pub(super) fn external_name(&self) -> Option<&str> {
        let is_external = self.spec.r#type.as_deref() == Some("ExternalName");
        self.spec.external_name.as_deref().filter(|_| is_external)
    }

    /// Whether it has no address of its own, so that its DNS name gives those of its pods.
    pub(super) fn is_headless(&self) -> bool {
        self.spec.cluster_ip.as_deref() == Some("None")
    }

    /// Whether it says the same of its instances as an earlier state of it.
    pub(super) fn says_the_same(&self, earlier: &Self) -> bool {
        self.spec == earlier.spec
            && self.metadata.labels == earlier.metadata.labels
            && self.metadata.annotations == earlier.metadata.annotations
    }
}

impl Object for Service {
    const API: &str = "/api/v1";
    const PLURAL: &str = "services";

    fn metadata(&self) -> &Metadata {
        &self.metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_that_is_no_port_spoils_nothing_else() {
        for number in ["0", "-1", "65536", "2147483647", "null"] {
            let text =
                format!(r#"{{"ports": [{{"name": "a", "port": {number}}}, {{"port": 80}}]}}"#);
            let slice: Slice = serde_json::from_str(&text).unwrap();
            let ports: Vec<_> = slice.ports.unwrap().iter().map(|port| port.port).collect();
            assert_eq!(ports, [None, Some(80)], "{number}");
        }
    }

    #[test]
    fn whatever_may_be_absent_may_be_null() {
        let slice: Slice = serde_json::from_str(
            r#"{"metadata": {"name": "web-1", "labels": null, "annotations": null},
                "addressType": "IPv4", "ports": null,
                "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": null}, "hints": null,
                               "targetRef": null, "nodeName": null, "zone": null}, {"addresses": null}]}"#,
        )
        .unwrap();
        assert_eq!(slice.endpoints().len(), 2);
        assert_eq!(slice.endpoints()[0].conditions, Some(Conditions::default()));
        let service: Service = serde_json::from_str(
            r#"{"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80, "targetPort": "http"},
                {"port": 81, "targetPort": 8081}], "ipFamilies": null}}"#,
        )
        .unwrap();
        assert_eq!(
            service.ports()[1].target_port,
            Some(TargetPort::Number(Some(8081)))
        );
    }
}
