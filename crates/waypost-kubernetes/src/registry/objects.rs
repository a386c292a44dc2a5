//! The objects that registration writes and reads back: a Service, and an EndpointSlice for each
//! instance.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::{Value, json};
use waypost_core::{Host, Instance, InstanceId, Registration};

use crate::mapping::ANNOTATION_PREFIX;
use crate::object_key::ObjectKey;
use crate::renewal::{EXPIRES_AFTER, RENEWED_AT, Renewal, TIMEOUT};
use crate::resources::{ObjectMeta, SERVICE_NAME_LABEL, StringMap};
use crate::service_ref::is_dns_label;

/// The label of a Service that says what manages it.
pub(super) const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The label of an EndpointSlice that says what manages it.
pub(super) const SLICE_MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// The value of both labels for objects of Waypost.
pub(super) const WAYPOST: &str = "waypost";

/// The annotation with the id of the instance in a slice.
const ID: &str = "waypost.dev/id";

/// The Service that owns a slice. Kubernetes deletes the slice with it.
#[derive(Clone)]
pub(super) struct Owner {
    pub(super) service: ObjectKey,
    pub(super) uid: Arc<str>,
}

/// A Service or an EndpointSlice as it is stored, with the fields that say what manages it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ExistingObject {
    pub(super) metadata: ObjectMeta,
    #[serde(default)]
    pub(super) spec: ExistingSpec,
    #[serde(default)]
    pub(super) address_type: Box<str>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
pub(super) struct ExistingSpec {
    pub(super) selector: Option<StringMap>,
}

impl ExistingObject {
    /// Whether this Service is managed by Waypost.
    pub(super) fn is_service_of_waypost(&self) -> bool {
        self.metadata.label(MANAGED_BY) == Some(WAYPOST) && self.spec.selector.is_none()
    }

    /// Whether this slice is managed by Waypost and holds the instance.
    pub(super) fn is_slice_of(&self, id: &InstanceId) -> bool {
        self.metadata.label(SLICE_MANAGED_BY) == Some(WAYPOST)
            && self.metadata.annotation(ID) == Some(id.as_str())
    }

    /// Whether this slice expired more than `grace` ago.
    pub(super) fn has_expired(&self, now: SystemTime, grace: Duration) -> bool {
        Renewal::of(&self.metadata).is_some_and(|renewal| renewal.has_expired(now, grace))
    }
}

/// The Service of an instance. It has no selector, so Kubernetes leaves its slices alone.
pub(super) fn service(service: &ObjectKey, instance: &Instance) -> Value {
    // In a Service port numbers must be unique, in a slice port names.
    let mut numbers = BTreeSet::new();
    let ports: Vec<_> = ports(instance)
        .filter(|(_, port)| numbers.insert(*port))
        .map(|(name, port)| json!({ "name": name, "port": port, "targetPort": port }))
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": &*service.name, "labels": { MANAGED_BY: WAYPOST } },
        "spec": { "ports": ports },
    })
}

/// The slice of an instance, renewed now.
pub(super) fn endpoint_slice(registration: &Registration, owner: &Owner, is_ready: bool) -> Value {
    let instance = registration.instance();
    let mut endpoint = json!({
        "addresses": [instance.host().bare()],
        "conditions": { "ready": is_ready, "serving": is_ready, "terminating": false },
    });
    if let Some(zone) = instance.zone() {
        endpoint["zone"] = zone.into();
    }
    let ports: Vec<_> = ports(instance)
        .map(|(name, port)| json!({ "name": name, "port": port, "protocol": "TCP" }))
        .collect();
    let ObjectKey {
        namespace,
        name: service,
    } = &owner.service;
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": slice_name(instance.id()),
            "namespace": &**namespace,
            "labels": { SERVICE_NAME_LABEL: &**service, SLICE_MANAGED_BY: WAYPOST },
            "annotations": annotations(registration),
            "ownerReferences": [{
                "apiVersion": "v1",
                "kind": "Service",
                "name": &**service,
                "uid": &*owner.uid,
            }],
        },
        "addressType": address_type(instance.host()),
        "endpoints": [endpoint],
        "ports": ports,
    })
}

/// The annotations for properties that a slice has no field for; the mapping to instances reads them.
fn annotations(registration: &Registration) -> BTreeMap<String, String> {
    let instance = registration.instance();
    let renewed_at = humantime::format_rfc3339_seconds(SystemTime::now());
    let mut annotations = BTreeMap::from([
        (ID.to_owned(), instance.id().to_string()),
        (RENEWED_AT.to_owned(), renewed_at.to_string()),
    ]);
    let mut add = |key: &str, value: &str| {
        if !value.is_empty() {
            annotations.insert(format!("{ANNOTATION_PREFIX}{key}"), value.to_owned());
        }
    };
    add("scheme", instance.scheme());
    add("weight", &instance.weight().to_string());
    let main = main_port_name(instance);
    if main != instance.scheme() {
        add("port", &main);
    }
    add("version", instance.version().unwrap_or_default());
    add("path", instance.path_prefix());
    add("tags", &instance.tags().collect::<Vec<_>>().join(","));
    for (key, value) in instance.metadata() {
        add(&format!("meta.{key}"), value);
    }
    // As in other registries, an instance without health checks stays until it is deregistered.
    let is_checked = registration.health().is_some() || !registration.checks().is_empty();
    if is_checked && let Some(after) = registration.deregister_critical_after() {
        let after = humantime::format_duration(after.max(TIMEOUT)).to_string();
        annotations.insert(EXPIRES_AFTER.to_owned(), after);
    }
    annotations
}

/// The instance's main port, and then its named ports.
fn ports(instance: &Instance) -> impl Iterator<Item = (Cow<'_, str>, u16)> {
    let main = main_port_name(instance);
    let others = instance.ports().map(|(name, port)| (name.into(), port));
    let others: Vec<_> = others.filter(|(name, _)| *name != main).collect();
    std::iter::once((main, instance.port())).chain(others)
}

/// The name of the main port: the scheme, or `main` if the scheme isn't a valid port name.
fn main_port_name(instance: &Instance) -> Cow<'_, str> {
    let scheme = instance.scheme();
    if is_dns_label(scheme) {
        scheme.into()
    } else {
        "main".into()
    }
}

fn address_type(host: &Host) -> &'static str {
    match host {
        Host::Ip(IpAddr::V4(_)) => "IPv4",
        Host::Ip(IpAddr::V6(_)) => "IPv6",
        Host::Name(_) => "FQDN",
    }
}

/// The name of an instance's slice: readable if possible, different for different ids, and at most
/// as long as a DNS label.
pub(super) fn slice_name(id: &InstanceId) -> String {
    const MAX_LENGTH: usize = 63 - "waypost-".len();
    let id = id.as_str();
    let to_label_char = |c: char| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9' | '-') => c,
        _ => '-',
    };
    let name: String = id.chars().map(to_label_char).collect();
    let name = name.trim_matches('-');
    if name == id && !name.is_empty() && name.len() <= MAX_LENGTH {
        return format!("waypost-{name}");
    }
    let prefix = &name[..name.len().min(MAX_LENGTH - "-12345678".len())];
    let prefix = prefix.trim_end_matches('-');
    format!("waypost-{prefix}-{:08x}", crc32fast::hash(id.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slice_names_are_unique_and_valid() {
        let long = "x".repeat(400);
        let ids = [
            "billing-1",
            "Billing-1",
            "billing_1",
            "-billing-1-",
            "größe:80",
            "-",
            "",
            &long,
        ];
        let names: BTreeSet<_> = ids
            .iter()
            .map(|id| slice_name(&InstanceId::new(*id)))
            .collect();
        assert_eq!(names.len(), ids.len(), "{names:?}");
        assert!(names.contains("waypost-billing-1"));
        assert!(names.iter().all(|name| is_dns_label(name)), "{names:?}");
    }

    #[test]
    fn an_id_that_fits_is_readable_in_the_name_of_its_slice() {
        let name = |id: &str| slice_name(&InstanceId::new(id));
        let fits = "x".repeat(55);
        assert_eq!(name(&fits), format!("waypost-{fits}"));
        assert_eq!(name(&fits).len(), 63);
        let long = format!("{fits}x");
        assert!(name(&long).starts_with(&format!("waypost-{}-", &long[..46])));
        assert_eq!(name(&long).len(), 63);
        // Where it is cut, there is no second dash.
        let dashed = format!("{}-{}", "x".repeat(45), "y".repeat(20));
        let cut = name(&dashed);
        assert!(
            cut.starts_with(&format!("waypost-{}-", "x".repeat(45))),
            "{cut}"
        );
        assert!(!cut.contains("--"), "{cut}");
    }
}
