//! The Kubernetes API objects that discovery reads, reduced to the fields that it uses.
//!
//! Any optional field may be absent or `null`; both deserialize to `None`.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};

use crate::namespaces::Namespaces;
use crate::object_key::ObjectKey;

/// A namespaced kind of object that can be listed and watched.
pub(crate) trait Resource: DeserializeOwned + PartialEq + Send + Sync + 'static {
    /// The URL path of the API group and version.
    const API: &str;
    /// The resource name in URLs and RBAC rules.
    const PLURAL: &str;

    fn metadata(&self) -> &ObjectMeta;

    /// The URL path of the collection in `namespace`.
    fn path(namespace: &str) -> String {
        format!("{}/namespaces/{namespace}/{}", Self::API, Self::PLURAL)
    }

    /// The URL path of the collection in these namespaces.
    fn path_in(namespaces: &Namespaces) -> String {
        match namespaces {
            Namespaces::One(namespace) => Self::path(namespace),
            Namespaces::All => format!("{}/{}", Self::API, Self::PLURAL),
        }
    }
}

/// Labels or annotations.
pub(crate) type StringMap = BTreeMap<Box<str>, Box<str>>;

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ObjectMeta {
    pub(crate) name: Arc<str>,
    pub(crate) namespace: Arc<str>,
    pub(crate) uid: Box<str>,
    pub(crate) resource_version: Box<str>,
    pub(crate) labels: Option<StringMap>,
    pub(crate) annotations: Option<StringMap>,
}

impl ObjectMeta {
    pub(crate) fn key(&self) -> ObjectKey {
        ObjectKey {
            namespace: Arc::clone(&self.namespace),
            name: Arc::clone(&self.name),
        }
    }

    pub(crate) fn label(&self, key: &str) -> Option<&str> {
        Some(self.labels.as_ref()?.get(key)?)
    }

    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        Some(self.annotations.as_ref()?.get(key)?)
    }
}

/// The response to a LIST request.
#[derive(Deserialize)]
#[serde(bound = "T: DeserializeOwned")]
pub(crate) struct List<T> {
    pub(crate) metadata: ListMeta,
    pub(crate) items: Option<Vec<T>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListMeta {
    pub(crate) resource_version: Box<str>,
}

/// The label of an EndpointSlice that names its Service.
pub(crate) const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";

/// Some of the endpoints of a Service (`discovery.k8s.io/v1`).
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct EndpointSlice {
    pub(crate) metadata: ObjectMeta,
    pub(crate) address_type: Box<str>,
    pub(crate) endpoints: Option<Vec<Endpoint>>,
    pub(crate) ports: Option<Vec<EndpointPort>>,
}

impl EndpointSlice {
    /// The name of the Service that the slice belongs to.
    pub(crate) fn service(&self) -> Option<&str> {
        self.metadata.label(SERVICE_NAME_LABEL)
    }

    pub(crate) fn belongs_to(&self, service: &ObjectKey) -> bool {
        self.metadata.namespace == service.namespace && self.service() == Some(&service.name)
    }

    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        self.endpoints.as_deref().unwrap_or_default()
    }
}

impl Resource for EndpointSlice {
    const API: &str = "/apis/discovery.k8s.io/v1";
    const PLURAL: &str = "endpointslices";

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
}

#[derive(Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct Endpoint {
    pub(crate) addresses: Option<Vec<Box<str>>>,
    pub(crate) conditions: Option<EndpointConditions>,
    pub(crate) target_ref: Option<ObjectReference>,
    pub(crate) hostname: Option<Box<str>>,
    pub(crate) node_name: Option<Box<str>>,
    pub(crate) zone: Option<Box<str>>,
    pub(crate) hints: Option<EndpointHints>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default)]
pub(crate) struct EndpointConditions {
    pub(crate) ready: Option<bool>,
    pub(crate) serving: Option<bool>,
    pub(crate) terminating: Option<bool>,
}

#[derive(Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default)]
pub(crate) struct ObjectReference {
    pub(crate) kind: Option<Box<str>>,
    pub(crate) namespace: Option<Box<str>>,
    pub(crate) name: Option<Box<str>>,
}

#[derive(Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct EndpointHints {
    pub(crate) for_nodes: Option<Vec<HintTarget>>,
    pub(crate) for_zones: Option<Vec<HintTarget>>,
}

#[derive(Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(default)]
pub(crate) struct HintTarget {
    pub(crate) name: Box<str>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct EndpointPort {
    pub(crate) name: Option<Box<str>>,
    #[serde(deserialize_with = "port_number")]
    pub(crate) port: Option<u16>,
    pub(crate) protocol: Option<Box<str>>,
    pub(crate) app_protocol: Option<Box<str>>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Service {
    pub(crate) metadata: ObjectMeta,
    pub(crate) spec: ServiceSpec,
}

impl Service {
    pub(crate) fn ports(&self) -> &[ServicePort] {
        self.spec.ports.as_deref().unwrap_or_default()
    }

    /// The DNS name that an `ExternalName` Service is an alias for.
    pub(crate) fn external_name(&self) -> Option<&str> {
        let is_external = self.spec.r#type.as_deref() == Some("ExternalName");
        self.spec.external_name.as_deref().filter(|_| is_external)
    }

    /// Whether it has no cluster IP, so that its DNS name resolves to the addresses of its pods.
    pub(crate) fn is_headless(&self) -> bool {
        self.spec.cluster_ip.as_deref() == Some("None")
    }

    /// Whether both versions of a Service are equal in everything that instances are made from.
    pub(crate) fn is_equivalent(&self, other: &Self) -> bool {
        self.spec == other.spec
            && self.metadata.labels == other.metadata.labels
            && self.metadata.annotations == other.metadata.annotations
    }
}

impl Resource for Service {
    const API: &str = "/api/v1";
    const PLURAL: &str = "services";

    fn metadata(&self) -> &ObjectMeta {
        &self.metadata
    }
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ServiceSpec {
    pub(crate) r#type: Option<Box<str>>,
    pub(crate) external_name: Option<Box<str>>,
    #[serde(rename = "clusterIP")]
    pub(crate) cluster_ip: Option<Box<str>>,
    pub(crate) internal_traffic_policy: Option<Box<str>>,
    pub(crate) ip_families: Option<Vec<Box<str>>>,
    pub(crate) ports: Option<Vec<ServicePort>>,
}

#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct ServicePort {
    pub(crate) name: Option<Box<str>>,
    #[serde(deserialize_with = "port_number")]
    pub(crate) port: Option<u16>,
    pub(crate) protocol: Option<Box<str>>,
    pub(crate) target_port: Option<TargetPort>,
    pub(crate) app_protocol: Option<Box<str>>,
}

/// A port of the pod, by number or by the name that the pod gives it.
#[derive(Debug, PartialEq, Deserialize)]
#[serde(untagged)]
pub(crate) enum TargetPort {
    Number(#[serde(deserialize_with = "port_number")] Option<u16>),
    Name(Box<str>),
}

/// Reads a port number; one outside of 1 to 65535 becomes `None`. The API server accepts any 32-bit
/// number in a slice, and one bad port must not make the whole list unreadable.
fn port_number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<u16>, D::Error> {
    let number = Option::<i64>::deserialize(from)?;
    let number = number.and_then(|number| u16::try_from(number).ok());
    Ok(number.filter(|number| *number != 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_port_number_does_not_make_the_slice_unreadable() {
        for number in ["0", "-1", "65536", "2147483647", "null"] {
            let text =
                format!(r#"{{"ports": [{{"name": "a", "port": {number}}}, {{"port": 80}}]}}"#);
            let slice: EndpointSlice = serde_json::from_str(&text).unwrap();
            let ports: Vec<_> = slice.ports.unwrap().iter().map(|port| port.port).collect();
            assert_eq!(ports, [None, Some(80)], "{number}");
        }
    }

    #[test]
    fn optional_fields_may_be_null() {
        let slice: EndpointSlice = serde_json::from_str(
            r#"{"metadata": {"name": "web-1", "labels": null, "annotations": null},
                "addressType": "IPv4", "ports": null,
                "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": null}, "hints": null,
                               "targetRef": null, "nodeName": null, "zone": null}, {"addresses": null}]}"#,
        )
        .unwrap();
        assert_eq!(slice.endpoints().len(), 2);
        assert_eq!(
            slice.endpoints()[0].conditions,
            Some(EndpointConditions::default())
        );
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
