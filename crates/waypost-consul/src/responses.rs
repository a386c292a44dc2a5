//! The responses of Consul's read endpoints, decoded to the types of `waypost-core`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Deserializer};
use waypost_core::provider::ServiceAnswer;
use waypost_core::{Health, Instance, Invalid, ServiceName, Weight};

use crate::blocking_query::Decoder;

/// Decodes the response of `/v1/health/service/:name`.
#[derive(Clone, Debug)]
pub(super) struct HealthDecoder {
    pub(super) service: ServiceName,
    /// The tag of the address to use, if not the default one.
    pub(super) tagged_address: Option<String>,
    /// Whether a warning counts as critical.
    pub(super) passing_only: bool,
}

impl Decoder for HealthDecoder {
    type Body = Vec<Entry>;
    type Item = ServiceAnswer;

    fn decode(&self, entries: Self::Body) -> ServiceAnswer {
        let instances = self.instances(entries);
        if instances.is_empty() {
            // Consul answers alike for a service without instances and for one that doesn't exist.
            // The directory remembers which services existed.
            ServiceAnswer::Unknown
        } else {
            ServiceAnswer::Instances(instances)
        }
    }

    fn is_empty(answer: &ServiceAnswer) -> bool {
        *answer == ServiceAnswer::Unknown
    }
}

impl HealthDecoder {
    /// The instances of a response. One that is not valid, for example because its address isn't, is
    /// left out with a warning, so that it doesn't hide the others.
    pub(super) fn instances(&self, entries: Vec<Entry>) -> Vec<Arc<Instance>> {
        // Ids are unique per node only. If several nodes have the same id, each gets the name of its
        // node; otherwise the id stays as it was registered.
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
            match self.instance(entry, &id) {
                Ok(instance) => instances.push(Arc::new(instance)),
                Err(error) => {
                    let service = &self.service;
                    tracing::warn!(%service, id, %error, "ignoring an invalid instance");
                }
            }
        }
        instances
    }

    fn instance(&self, entry: Entry, id: &str) -> Result<Instance, Invalid> {
        let mut health = worst_health(&entry.checks);
        if health == Health::Warning && self.passing_only {
            health = Health::Critical;
        }
        let (address, port) = self.address(&entry);
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
        let tagged_version = tags.iter().find_map(|tag| tag.strip_prefix("version="));
        let version = meta.get("version").map(String::as_str).or(tagged_version);
        let mut builder = Instance::builder(self.service.clone(), host, port)
            .id(id)
            .scheme(scheme)
            .health(health)
            .weight(weight);
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
        builder.tags(tags).metadata(meta).build()
    }

    /// The address and port of an instance: the tagged address, if one is wanted and the service or
    /// else its node has it; else the service's address; else its node's.
    fn address<'a>(&self, entry: &'a Entry) -> (&'a str, i64) {
        let Entry { service, node, .. } = entry;
        let tag = self.tagged_address.as_deref();
        if let Some(tagged) = tag.and_then(|tag| service.tagged_addresses.get(tag)) {
            let port = match tagged.port {
                0 => service.port,
                port => port,
            };
            return (&tagged.address, port);
        }
        if !service.address.is_empty() {
            return (&service.address, service.port);
        }
        let tagged = tag.and_then(|tag| node.tagged_addresses.get(tag));
        (tagged.unwrap_or(&node.address), service.port)
    }
}

/// The worst status of the checks of an instance and its node, as for Consul's own `?passing`.
fn worst_health(checks: &[CheckState]) -> Health {
    let each = checks.iter().map(|check| match check.status.as_str() {
        "passing" => Health::Passing,
        "warning" => Health::Warning,
        _ => Health::Critical,
    });
    each.max().unwrap_or(Health::Unchecked)
}

/// Decodes the response of `/v1/catalog/services`.
#[derive(Debug, Default)]
pub(super) struct CatalogDecoder {
    /// The names that were left out of the last response.
    left_out: Mutex<Vec<String>>,
}

impl Decoder for CatalogDecoder {
    /// The tags by service name.
    type Body = BTreeMap<String, Vec<String>>;
    type Item = BTreeSet<ServiceName>;

    fn decode(&self, services: Self::Body) -> BTreeSet<ServiceName> {
        let mut names = BTreeSet::new();
        let mut left_out = Vec::new();
        for name in services.keys() {
            match ServiceName::new(name) {
                Ok(name) => {
                    names.insert(name);
                }
                Err(error) => left_out.push(error.to_string()),
            }
        }
        let mut before = self.left_out.lock().unwrap_or_else(PoisonError::into_inner);
        // Once, not after each change of another service.
        if *before != left_out {
            if !left_out.is_empty() {
                tracing::warn!("services left out: {}", left_out.join("; "));
            }
            *before = left_out;
        }
        names
    }

    fn is_empty(names: &BTreeSet<ServiceName>) -> bool {
        names.is_empty()
    }
}

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

/// Go writes an empty list or map as `null`.
fn null_as_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(json: &str) -> Vec<Arc<Instance>> {
        decode_with(json, None, false)
    }

    fn decode_with(json: &str, tag: Option<&str>, passing_only: bool) -> Vec<Arc<Instance>> {
        let decoder = HealthDecoder {
            service: ServiceName::new("web").unwrap(),
            tagged_address: tag.map(str::to_owned),
            passing_only,
        };
        decoder.instances(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn a_tagged_address_is_that_of_the_service_or_else_that_of_the_node() {
        let json = r#"[
          {"Node": {"Node": "n", "Address": "10.0.0.1", "TaggedAddresses": {"wan": "203.0.113.1"}},
           "Service": {"ID": "a", "Address": "10.0.0.9", "Port": 80,
             "TaggedAddresses": {"wan": {"Address": "203.0.113.9", "Port": 8080}}}},
          {"Node": {"Node": "n", "Address": "10.0.0.1", "TaggedAddresses": {"wan": "203.0.113.1"}},
           "Service": {"ID": "b", "Address": "", "Port": 81}}
        ]"#;
        let urls = |tag| -> Vec<String> {
            let all = decode_with(json, tag, false);
            all.iter().map(|i| i.url().to_owned()).collect()
        };
        assert_eq!(urls(None), ["http://10.0.0.9:80", "http://10.0.0.1:81"]);
        let wan = ["http://203.0.113.9:8080", "http://203.0.113.1:81"];
        assert_eq!(urls(Some("wan")), wan);
    }

    #[test]
    fn a_warning_counts_as_critical_only_with_passing_only() {
        let json = r#"[{"Node": {"Node": "n"}, "Checks": [{"Status": "warning"}],
          "Service": {"ID": "a", "Address": "a", "Port": 1, "Tags": ["version=1.2"]}}]"#;
        assert_eq!(decode_with(json, None, false)[0].health(), Health::Warning);
        assert_eq!(decode_with(json, None, true)[0].health(), Health::Critical);
        assert_eq!(decode(json)[0].version(), Some("1.2"));
    }

    #[test]
    fn a_response_is_decoded_to_instances() {
        let all = decode(
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
    fn an_invalid_instance_does_not_hide_the_others() {
        let all = decode(
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
    fn the_same_id_on_two_nodes_makes_two_instances() {
        let all = decode(
            r#"[
              {"Node": {"Node": "n1"}, "Service": {"ID": "web", "Address": "a", "Port": 1}},
              {"Node": {"Node": "n2"}, "Service": {"ID": "web", "Address": "b", "Port": 1}}
            ]"#,
        );
        let ids: Vec<_> = all.iter().map(|i| i.id().as_str()).collect();
        assert_eq!(ids, ["web@n1", "web@n2"]);
    }
}
