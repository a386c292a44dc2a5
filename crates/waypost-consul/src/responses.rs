//! The responses of Consul's read endpoints, decoded to the types of `waypost-core`.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Deserializer};
use waypost_core::provider::{IgnoredValues, ServiceAnswer};
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
    /// Logs ignored values.
    pub(super) ignored: Arc<IgnoredValues>,
}

impl Decoder for HealthDecoder {
    type Body = Vec<Entry>;
    type Item = ServiceAnswer;

    fn decode(&self, entries: Self::Body) -> ServiceAnswer {
        let instances = self.instances(entries);
        if instances.is_empty() {
            // Consul gives the same response for a service without instances and for one that doesn't exist.
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
    /// The instances of a response. An instance without a valid address is left out with a warning, so
    /// that it doesn't hide the others. Any other invalid field gets its default.
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
                Err(invalid) => self.ignored.instance(&self.service, &id, &invalid),
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
        let ignore = |invalid: Invalid| self.ignored.field(&self.service, id, &invalid);
        let scheme = meta.get("scheme").map_or("http", String::as_str);
        let port = match (port, scheme) {
            (0, "https" | "wss") => 443,
            (0, _) => 80,
            (port, _) => u16::try_from(port)
                .map_err(|_| Invalid::new("port", port.to_string(), "use a number up to 65535"))?,
        };
        let from_meta = meta.get("weight").map(|weight| weight.parse::<Weight>());
        let from_weights = weights.map(|weights| {
            if health == Health::Warning {
                Weight::try_from(weights.warning)
            } else {
                Weight::try_from(weights.passing)
            }
        });
        let mut weights = [from_meta, from_weights].into_iter().flatten();
        let weight = weights.find_map(|weight| weight.map_err(ignore).ok());
        let tagged_version = tags.iter().find_map(|tag| tag.strip_prefix("version="));
        let version = meta.get("version").map(String::as_str).or(tagged_version);
        let mut builder = Instance::builder(self.service.clone(), host, port)
            .id(id)
            .health(health)
            .weight(weight.unwrap_or_default());
        builder.try_scheme(scheme).unwrap_or_else(ignore);
        if let Some(path) = meta.get("path") {
            builder.try_path_prefix(path).unwrap_or_else(ignore);
        }
        if let Some(version) = version {
            builder = builder.version(version);
        }
        if let Some(zone) = meta.get("zone") {
            builder = builder.zone(zone.as_str());
        }
        for (key, value) in &meta {
            let Some(name) = key.strip_prefix("port_") else {
                continue;
            };
            match value.parse() {
                Ok(port) if port != 0 => builder = builder.named_port(name, port),
                _ => ignore(Invalid::new(
                    "named port",
                    format!("{key}={value}"),
                    "use a number from 1 to 65535",
                )),
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
    pub(super) ignored: Arc<IgnoredNames>,
}

/// The names in the last response that aren't valid names of services.
#[derive(Debug, Default)]
pub(super) struct IgnoredNames(Mutex<Vec<Invalid>>);

impl IgnoredNames {
    pub(super) fn get(&self) -> Vec<Invalid> {
        self.lock().clone()
    }

    /// Replaces the names. They are logged once, not after each change of another service.
    fn replace(&self, names: Vec<Invalid>) {
        let mut known = self.lock();
        if *known != names {
            if !names.is_empty() {
                let reasons: Vec<_> = names.iter().map(ToString::to_string).collect();
                tracing::warn!("services left out: {}", reasons.join("; "));
            }
            *known = names;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Invalid>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Decoder for CatalogDecoder {
    /// The tags by service name.
    type Body = BTreeMap<String, Vec<String>>;
    type Item = BTreeSet<ServiceName>;

    fn decode(&self, services: Self::Body) -> BTreeSet<ServiceName> {
        let mut names = BTreeSet::new();
        let mut ignored = Vec::new();
        for name in services.keys() {
            match ServiceName::new(name) {
                Ok(name) => {
                    names.insert(name);
                }
                Err(invalid) => ignored.push(invalid),
            }
        }
        self.ignored.replace(ignored);
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
            ignored: Arc::default(),
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
    fn an_invalid_field_of_metadata_gets_its_default_and_the_instance_is_kept() {
        let with = |meta: &str, weights: &str| {
            let json = format!(
                r#"[{{"Node": {{"Node": "n"}}, "Checks": [{{"Status": "passing"}}],
                  "Service": {{"ID": "a", "Address": "a", "Port": 8080, "Meta": {meta},
                               "Weights": {weights}}}}}]"#
            );
            let instances = decode(&json);
            assert_eq!(instances.len(), 1, "{meta}");
            Arc::clone(&instances[0])
        };
        for weight in [
            "1.0", "", "heavy", "-1", "65536", "1e3", "NaN", " 5", "0x10",
        ] {
            let meta = serde_json::json!({ "weight": weight }).to_string();
            let instance = with(&meta, r#"{"Passing": 7, "Warning": 1}"#);
            assert_eq!(instance.weight(), Weight::new(7), "{weight:?}");
            assert_eq!(instance.meta("weight"), Some(weight));
            assert_eq!(
                with(&meta, "null").weight(),
                Weight::default(),
                "{weight:?}"
            );
        }
        let out_of_range = with("{}", r#"{"Passing": -3, "Warning": 1}"#);
        assert_eq!(out_of_range.weight(), Weight::default());
        for scheme in ["", "ht tp", "1http", "http://"] {
            let meta = serde_json::json!({ "scheme": scheme }).to_string();
            assert_eq!(with(&meta, "null").url(), "http://a:8080", "{scheme:?}");
        }
        for path in ["/a b", "/v2?x=1", "#top"] {
            let meta = serde_json::json!({ "path": path }).to_string();
            assert_eq!(with(&meta, "null").url(), "http://a:8080", "{path:?}");
        }
        for port in ["", "0", "-1", "70000", "tcp://10.0.0.1:80"] {
            let meta = serde_json::json!({ "port_admin": port }).to_string();
            assert_eq!(with(&meta, "null").named_port("admin"), None, "{port:?}");
        }
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

    #[test]
    fn names_that_are_left_out_are_logged_once() {
        let (logs, _guard) = waypost_testkit::Logs::take();
        let ignored = IgnoredNames::default();
        let invalid = |name: &str| ServiceName::new(name).unwrap_err();
        let count = || logs.lines(&["WARN", "services left out"]).len();
        ignored.replace(Vec::new());
        assert_eq!(count(), 0);
        for _ in 0..2 {
            ignored.replace(vec![invalid("a b")]);
            assert_eq!(count(), 1);
        }
        ignored.replace(vec![invalid("a b"), invalid("c d")]);
        assert_eq!((count(), ignored.get().len()), (2, 2));
        ignored.replace(Vec::new());
        assert_eq!((count(), ignored.get().len()), (2, 0));
    }
}
