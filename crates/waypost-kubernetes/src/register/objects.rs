//! The objects that are written: a Service, and an EndpointSlice for each instance.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::SystemTime;

use serde_json::{Value, json};
use waypost_core::{Host, Instance, InstanceId, Registration};

use super::Held;
use crate::place::{Place, is_label};
use crate::renewal;
use crate::wire::SERVICE_NAME;

/// The label of a Service that says whose it is.
pub(super) const OWNER: &str = "app.kubernetes.io/managed-by";
/// The label of a slice that says whose it is.
pub(super) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// The value of both labels, for what is ours.
pub(super) const US: &str = "waypost";

/// The annotation of a slice that says who is in it.
pub(super) const ID: &str = "waypost.dev/id";

pub(super) fn service(place: &Place, instance: &Instance) -> Value {
    // A Service has each number once, a slice each name.
    let mut numbers = BTreeSet::new();
    let ports: Vec<_> = ports(instance)
        .filter(|(_, port)| numbers.insert(*port))
        .map(|(name, port)| json!({ "name": name, "port": port, "targetPort": port }))
        .collect();
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": &*place.service, "labels": { OWNER: US } },
        "spec": { "ports": ports },
    })
}

pub(super) fn slice(registration: &Registration, held: &Held) -> Value {
    let instance = registration.instance();
    let is_ready = held.is_ready && !held.in_maintenance;
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
    json!({
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": slice_name(instance.id()),
            "namespace": &*held.place.namespace,
            "labels": { SERVICE_NAME: &*held.place.service, MANAGED_BY: US },
            "annotations": annotations(registration),
            "ownerReferences": [{
                "apiVersion": "v1",
                "kind": "Service",
                "name": &*held.place.service,
                "uid": &*held.uid,
            }],
        },
        "addressType": address_type(instance.host()),
        "endpoints": [endpoint],
        "ports": ports,
    })
}

/// What an instance says of itself where a slice has no field for it, in the annotations that the
/// reading side knows.
fn annotations(registration: &Registration) -> BTreeMap<String, String> {
    let instance = registration.instance();
    let renewed = humantime::format_rfc3339_seconds(SystemTime::now());
    let mut all = BTreeMap::from([
        (ID.to_owned(), instance.id().to_string()),
        (renewal::RENEWED_AT.to_owned(), renewed.to_string()),
        (
            "waypost.dev/scheme".to_owned(),
            instance.scheme().to_owned(),
        ),
        (
            "waypost.dev/weight".to_owned(),
            instance.weight().to_string(),
        ),
    ]);
    let main = main_port(instance);
    let mut say = |key: &str, value: &str| {
        if !value.is_empty() {
            all.insert(format!("waypost.dev/{key}"), value.to_owned());
        }
    };
    if main != instance.scheme() {
        say("port", &main);
    }
    say("version", instance.version().unwrap_or_default());
    say("path", instance.path_prefix());
    say("tags", &instance.tags().collect::<Vec<_>>().join(","));
    for (key, value) in instance.metadata() {
        say(&format!("meta.{key}"), value);
    }
    // As with other registries, what has no check is there until it is taken back.
    let is_checked = registration.health().is_some() || !registration.checks().is_empty();
    if let Some(after) = registration
        .deregister_critical_after()
        .filter(|_| is_checked)
    {
        let after = humantime::format_duration(after.max(renewal::OVERDUE)).to_string();
        all.insert(renewal::EXPIRES_AFTER.to_owned(), after);
    }
    all
}

/// What of an instance can't be written down, and why.
pub(super) fn unwritable(instance: &Instance) -> Option<String> {
    if let Some(tag) = instance
        .tags()
        .find(|tag| tag.contains(',') || tag.trim() != *tag)
    {
        return Some(format!(
            "the tag {tag:?}: no commas, and no spaces around it"
        ));
    }
    // The rules for the names of annotations, of which `meta.` is a part.
    let is_edge = |c: char| c.is_ascii_alphanumeric();
    let is_inner = |c: char| is_edge(c) || matches!(c, '-' | '_' | '.');
    let is_good = |key: &str| {
        (1..=58).contains(&key.len()) && key.chars().all(is_inner) && key.ends_with(is_edge)
    };
    let mut keys = instance.metadata().map(|(key, _)| key);
    if let Some(key) = keys.find(|key| !is_good(key)) {
        return Some(format!(
            "the metadata {key:?}: its name may have 58 letters, digits, '-', '_' and '.', and \
             ends with a letter or digit"
        ));
    }
    if let Some((name, _)) = instance.ports().find(|(name, _)| !is_label(name)) {
        return Some(format!(
            "the port {name:?}: its name may have 63 of a-z, 0-9 and '-', and begins and ends \
             with a letter or digit"
        ));
    }
    let tags = instance.tags().map(|tag| tag.len() + 1).sum::<usize>();
    let metadata = instance
        .metadata()
        .map(|(key, value)| key.len() + value.len() + KEY);
    let size = tags + metadata.sum::<usize>() + instance.id().as_str().len();
    (size > MOST).then(|| format!("{size} bytes of tags and metadata: all of it may have {MOST}"))
}

/// An object's annotations may have 256 KiB; the rest of ours is small.
const MOST: usize = 250 * 1024;
/// What stands before each key of the metadata.
const KEY: usize = "waypost.dev/meta.".len();

/// The instance's port under the name of its scheme, then those that have names of their own.
fn ports(instance: &Instance) -> impl Iterator<Item = (Cow<'_, str>, u16)> {
    let main = main_port(instance);
    let others = instance.ports().map(|(name, port)| (name.into(), port));
    let others: Vec<_> = others.filter(|(name, _)| *name != main).collect();
    std::iter::once((main, instance.port())).chain(others)
}

/// The name of the instance's own port. A scheme may have signs that the name of a port may not.
fn main_port(instance: &Instance) -> Cow<'_, str> {
    let scheme = instance.scheme();
    match is_label(scheme) {
        true => scheme.into(),
        false => "main".into(),
    }
}

fn address_type(host: &Host) -> &'static str {
    match host {
        Host::Ip(IpAddr::V4(_)) => "IPv4",
        Host::Ip(IpAddr::V6(_)) => "IPv6",
        Host::Name(_) => "FQDN",
    }
}

/// Why the API server refuses an address, in the words of its own rules.
pub(super) fn refusal(host: &Host) -> Option<&'static str> {
    let ip = match host {
        Host::Ip(ip) => *ip,
        Host::Name(name) => {
            let name = name.strip_suffix('.').unwrap_or(name);
            return match name.contains('.') {
                false => Some("a name that only this machine understands: it has no dot"),
                true if name.split('.').all(is_label) => None,
                true => Some("which is no name of DNS: only a-z, 0-9 and '-' between the dots"),
            };
        }
    };
    let is_link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    match ip {
        ip if ip.is_loopback() => Some("a loopback address, which leads every pod to itself"),
        ip if ip.is_unspecified() => Some("which is no address to connect to"),
        ip if ip.is_multicast() => Some("a multicast address"),
        _ if is_link_local => Some("a link-local address, which is good on one wire only"),
        IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some() => {
            Some("an IPv4 address written as IPv6; write it as IPv4")
        }
        _ => None,
    }
}

/// A name for the slice of an instance: readable, and different for different ids. As short as the
/// names of most other objects must be.
pub(super) fn slice_name(id: &InstanceId) -> String {
    const LONGEST: usize = 63 - "waypost-".len();
    let id = id.as_str();
    let tame = |c: char| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9' | '-') => c,
        _ => '-',
    };
    let name: String = id.chars().map(tame).collect();
    let name = name.trim_matches('-');
    if name == id && !name.is_empty() && name.len() <= LONGEST {
        return format!("waypost-{name}");
    }
    let start = &name[..name.len().min(LONGEST - "-12345678".len())];
    let start = start.trim_end_matches('-');
    format!("waypost-{start}-{:08x}", crc32fast::hash(id.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_has_a_name_of_its_own_that_the_api_server_takes() {
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
        let names: std::collections::BTreeSet<_> = ids
            .iter()
            .map(|id| slice_name(&InstanceId::new(*id)))
            .collect();
        assert_eq!(names.len(), ids.len(), "{names:?}");
        assert!(names.contains("waypost-billing-1"));
        for name in names {
            let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            assert!(name.len() <= 63 && name.chars().all(is_inner), "{name}");
            assert!(!name.ends_with('-'), "{name}");
        }
    }

    #[test]
    fn addresses_that_lead_nowhere_are_told_with_the_reason() {
        for (host, word) in [
            ("127.0.0.1", "loopback"),
            ("::1", "loopback"),
            ("169.254.1.1", "link-local"),
            ("fe80::1", "link-local"),
            ("0.0.0.0", "no address"),
            ("224.0.0.1", "multicast"),
            ("::ffff:10.0.0.1", "IPv4"),
            ("localhost", "no dot"),
            ("my_host.example.com", "a-z"),
        ] {
            let why = refusal(&host.parse().unwrap()).unwrap();
            assert!(why.contains(word), "{host}: {why}");
        }
        for host in [
            "10.0.0.7",
            "2001:db8::1",
            "db.example.com",
            "db.example.com.",
        ] {
            assert_eq!(refusal(&host.parse().unwrap()), None, "{host}");
        }
    }
}
