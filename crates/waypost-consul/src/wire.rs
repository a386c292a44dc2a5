//! What Consul answers, and what we make of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Deserializer};
use waypost_core::{Health, Instance, Invalid, ServiceName, Weight};

/// One item of `/v1/health/service/:name`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Entry {
    node: Node,
    service: Service,
    #[serde(default, deserialize_with = "null_as_default")]
    checks: Vec<CheckState>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Node {
    node: String,
    #[serde(default)]
    address: String,
    #[serde(default, deserialize_with = "null_as_default")]
    tagged_addresses: HashMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ServiceAddress {
    address: String,
    #[serde(default)]
    port: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(rename = "ID")]
    id: String,
    #[serde(default)]
    address: String,
    #[serde(default)]
    port: i64,
    #[serde(default, deserialize_with = "null_as_default")]
    tagged_addresses: HashMap<String, ServiceAddress>,
    #[serde(default, deserialize_with = "null_as_default")]
    tags: Vec<String>,
    #[serde(default, deserialize_with = "null_as_default")]
    meta: BTreeMap<String, String>,
    #[serde(default)]
    weights: Option<Weights>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Weights {
    passing: i64,
    warning: i64,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct CheckState {
    status: String,
}

/// Go writes an empty list as `null`.
fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

/// How entries are read.
#[derive(Clone, Debug)]
pub(super) struct Reading {
    pub(super) service: ServiceName,
    /// Which of its addresses to use; its usual one unless set.
    pub(super) tagged_address: Option<String>,
    /// Whether an instance with a warning takes no traffic.
    pub(super) passing_only: bool,
}

/// Reads an answer as it comes.
#[cfg(feature = "fuzz")]
pub fn read_answer(body: &[u8]) {
    let (Ok(entries), Ok(service)) = (serde_json::from_slice(body), "fuzz".parse()) else {
        return;
    };
    let reading = Reading {
        service,
        tagged_address: Some("lan".to_owned()),
        passing_only: true,
    };
    instances(&reading, entries);
}

/// The instances of an answer. One that can't be called, such as one with an address that is none,
/// is left out with a word in the log: it must not hide the others.
pub(super) fn instances(reading: &Reading, entries: Vec<Entry>) -> Vec<Arc<Instance>> {
    // An id is unique on its node only. Where two nodes use the same one, each gets its node's
    // name; otherwise it stays as it was registered.
    let mut uses: HashMap<String, usize> = HashMap::new();
    for entry in &entries {
        *uses.entry(entry.service.id.clone()).or_default() += 1;
    }
    let mut instances = Vec::with_capacity(entries.len());
    for entry in entries {
        let id = match uses.get(&entry.service.id) {
            Some(1) => entry.service.id.clone(),
            _ => format!("{}@{}", entry.service.id, entry.node.node),
        };
        match instance(reading, entry, &id) {
            Ok(instance) => instances.push(Arc::new(instance)),
            Err(fault) => {
                let service = &reading.service;
                tracing::warn!(%service, id, %fault, "instance left out: it can't be called");
            }
        }
    }
    instances
}

fn instance(reading: &Reading, entry: Entry, id: &str) -> Result<Instance, Invalid> {
    let mut health = health(&entry.checks);
    if health == Health::Warning && reading.passing_only {
        health = Health::Critical;
    }
    let (address, port) = place(reading, &entry);
    let host = address.parse()?;
    let Service {
        tags,
        meta,
        weights,
        ..
    } = entry.service;
    let scheme = meta.get("scheme").map_or("http", String::as_str);
    let port = match (port, scheme) {
        (0, "https" | "wss") => 443,
        (0, _) => 80,
        (port, _) => u16::try_from(port)
            .map_err(|_| Invalid::new("port", port.to_string(), "use a number up to 65535"))?,
    };
    let weight = match (meta.get("weight"), weights) {
        (Some(weight), _) => weight.parse()?,
        (None, Some(weights)) if health == Health::Warning => weights.warning.try_into()?,
        (None, Some(weights)) => weights.passing.try_into()?,
        (None, None) => Weight::default(),
    };
    let version = (meta.get("version").cloned()).or_else(|| {
        Some(
            tags.iter()
                .find_map(|tag| tag.strip_prefix("version="))?
                .to_owned(),
        )
    });
    let mut builder = Instance::builder(reading.service.clone(), host, port)
        .id(id)
        .scheme(scheme)
        .health(health)
        .weight(weight)
        .tags(tags);
    if let Some(path) = meta.get("path") {
        builder = builder.path_prefix(path);
    }
    if let Some(version) = version {
        builder = builder.version(version);
    }
    if let Some(zone) = meta.get("zone") {
        builder = builder.zone(zone.as_str());
    }
    for (key, value) in &meta {
        if let (Some(name), Ok(port)) = (key.strip_prefix("port_"), value.parse()) {
            builder = builder.named_port(name, port);
        }
    }
    builder.metadata(meta).build()
}

/// Where an instance listens: at the address that was asked for by tag, or the service's own, or,
/// where it has none, its node's.
fn place<'a>(reading: &Reading, entry: &'a Entry) -> (&'a str, i64) {
    let Entry { service, node, .. } = entry;
    let tag = reading.tagged_address.as_deref();
    if let Some(tagged) = tag.and_then(|tag| service.tagged_addresses.get(tag)) {
        let port = match tagged.port {
            0 => service.port,
            port => port,
        };
        return (&tagged.address, port);
    }
    let of_node = tag.and_then(|tag| node.tagged_addresses.get(tag));
    let address = match (service.address.is_empty(), of_node) {
        (false, _) => &service.address,
        (true, Some(tagged)) => tagged,
        (true, None) => &node.address,
    };
    (address, service.port)
}

/// The worst that a check of the instance or of its node says, as in Consul's own `?passing`.
fn health(checks: &[CheckState]) -> Health {
    let each = checks.iter().map(|check| match check.status.as_str() {
        "passing" => Health::Passing,
        "warning" => Health::Warning,
        _ => Health::Critical,
    });
    each.max().unwrap_or(Health::Unchecked)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Vec<Arc<Instance>> {
        read_as(json, None, false)
    }

    fn read_as(json: &str, tag: Option<&str>, passing_only: bool) -> Vec<Arc<Instance>> {
        let reading = Reading {
            service: ServiceName::new("web").unwrap(),
            tagged_address: tag.map(str::to_owned),
            passing_only,
        };
        instances(&reading, serde_json::from_str(json).unwrap())
    }

    #[test]
    fn an_address_by_tag_is_the_services_or_else_the_nodes() {
        let json = r#"[
          {"Node": {"Node": "n", "Address": "10.0.0.1", "TaggedAddresses": {"wan": "203.0.113.1"}},
           "Service": {"ID": "a", "Address": "10.0.0.9", "Port": 80,
             "TaggedAddresses": {"wan": {"Address": "203.0.113.9", "Port": 8080}}}},
          {"Node": {"Node": "n", "Address": "10.0.0.1", "TaggedAddresses": {"wan": "203.0.113.1"}},
           "Service": {"ID": "b", "Address": "", "Port": 81}}
        ]"#;
        let urls = |tag| -> Vec<String> {
            let all = read_as(json, tag, false);
            all.iter().map(|i| i.url().to_owned()).collect()
        };
        assert_eq!(urls(None), ["http://10.0.0.9:80", "http://10.0.0.1:81"]);
        let wan = ["http://203.0.113.9:8080", "http://203.0.113.1:81"];
        assert_eq!(urls(Some("wan")), wan);
    }

    #[test]
    fn a_warning_counts_as_asked_for() {
        let json = r#"[{"Node": {"Node": "n"}, "Checks": [{"Status": "warning"}],
          "Service": {"ID": "a", "Address": "a", "Port": 1, "Tags": ["version=1.2"]}}]"#;
        assert_eq!(read_as(json, None, false)[0].health(), Health::Warning);
        assert_eq!(read_as(json, None, true)[0].health(), Health::Critical);
        assert_eq!(read(json)[0].version(), Some("1.2"));
    }

    #[test]
    fn what_consul_says_becomes_an_instance() {
        let all = read(
            r#"[{
              "Node": {"Node": "n1", "Address": "10.0.0.1"},
              "Service": {"ID": "web-1", "Service": "web", "Tags": ["a"], "Address": "", "Port": 80,
                "Meta": {"version": "2.0.0", "zone": "eu-1", "scheme": "https", "path": "v2",
                         "port_admin": "9000", "team": "x"},
                "Weights": {"Passing": 10, "Warning": 3}},
              "Checks": [{"Status": "passing"}, {"Status": "warning"}]
            }, {
              "Node": {"Node": "n2", "Address": "10.0.0.2"},
              "Service": {"ID": "web-2", "Tags": null, "Address": "web.example", "Port": 0, "Meta": null},
              "Checks": []
            }]"#,
        );
        let first = &all[0];
        assert_eq!(first.url(), "https://10.0.0.1:80/v2");
        assert_eq!(first.health(), Health::Warning);
        assert_eq!(first.weight(), Weight::new(3));
        assert_eq!(first.version(), Some("2.0.0"));
        assert_eq!(first.zone(), Some("eu-1"));
        assert_eq!(first.named_port("admin"), Some(9000));
        assert_eq!(first.meta("team"), Some("x"));
        assert_eq!(all[1].url(), "http://web.example:80");
        assert_eq!(all[1].health(), Health::Unchecked);
    }

    #[test]
    fn one_bad_instance_does_not_hide_the_others() {
        let all = read(
            r#"[
              {"Node": {"Node": "n"}, "Service": {"ID": "bad", "Address": "no host", "Port": 1}},
              {"Node": {"Node": "n"}, "Service": {"ID": "bad2", "Address": "a", "Port": 70000}},
              {"Node": {"Node": "n"}, "Service": {"ID": "good", "Address": "a", "Port": 1}}
            ]"#,
        );
        assert_eq!(all.len(), 1);
        assert_eq!(all[0].id().as_str(), "good");
    }

    #[test]
    fn the_same_id_on_two_nodes_is_two_instances() {
        let all = read(
            r#"[
              {"Node": {"Node": "n1"}, "Service": {"ID": "web", "Address": "a", "Port": 1}},
              {"Node": {"Node": "n2"}, "Service": {"ID": "web", "Address": "b", "Port": 1}}
            ]"#,
        );
        let ids: Vec<_> = all.iter().map(|i| i.id().as_str()).collect();
        assert_eq!(ids, ["web@n1", "web@n2"]);
    }
}
