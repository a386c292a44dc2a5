//! Parses the file; errors have line and column.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::error::ConfigError;
use crate::model::{Health, Host, Instance, InstanceBuilder, Invalid, ServiceName, Weight};
use crate::yaml::parse_yaml;

/// The instances of each service.
pub(crate) type Services = BTreeMap<ServiceName, Vec<Arc<Instance>>>;

/// The instances of services, from JSON in the format that [`StaticProvider`](super::StaticProvider)
/// reads. `origin` says where the text comes from, for the location in an error.
///
/// ```
/// use waypost_core::provider::services_from_json;
///
/// let json = r#"{"auth": [{"address": "10.0.0.7", "port": 80}, "http://10.0.0.8"]}"#;
/// let services = services_from_json("the response of zk:2181", json)?;
/// assert_eq!(services["auth"].len(), 2);
/// # Ok::<(), waypost_core::ConfigError>(())
/// ```
///
/// # Errors
/// If the text is not JSON of this format. The error has line and column.
pub fn services_from_json(
    origin: &str,
    json: &str,
) -> Result<BTreeMap<ServiceName, Vec<Arc<Instance>>>, ConfigError> {
    parse_json(Path::new(origin), json.as_bytes())
}

/// Parses the content of the file at `path`: as JSON if the name ends in `.json`, else as YAML.
pub(crate) fn parse(path: &Path, content: &[u8]) -> Result<Services, ConfigError> {
    let is_json = path.extension().is_some_and(|ending| ending == "json");
    if is_json {
        return parse_json(path, content);
    }
    let text = std::str::from_utf8(content).map_err(|error| {
        ConfigError::new(path.display().to_string(), format!("not UTF-8: {error}"))
    })?;
    // A file whose services are all commented out is one without services.
    let document: Option<Document> = parse_yaml(path.display(), text)?;
    Ok(document.map_or_else(Services::new, |Document(services)| services))
}

fn parse_json(path: &Path, content: &[u8]) -> Result<Services, ConfigError> {
    let Document(services) = serde_json::from_slice(content).map_err(|error| {
        let text = error.to_string();
        let position = format!(" at line {} column {}", error.line(), error.column());
        ConfigError::new(
            location(path, error.line() as u64, error.column() as u64),
            text.trim_end_matches(&position),
        )
    })?;
    Ok(services)
}

fn location(path: &Path, line: u64, column: u64) -> String {
    format!("{}:{line}:{column}", path.display())
}

/// The whole file.
struct Document(Services);

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct DocumentVisitor;

        impl<'de> Visitor<'de> for DocumentVisitor {
            type Value = Services;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("services by name, such as {\"auth\": {\"url\": \"http://auth:5001\"}}")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Services, A::Error> {
                let mut services = Services::new();
                while let Some(name) = map.next_key::<ServiceName>()? {
                    let entry: Entry = map.next_value()?;
                    let instances = entry.instances(&name).map_err(|invalid| {
                        A::Error::custom(format_args!("service {name:?}: {invalid}"))
                    })?;
                    if services.insert(name.clone(), instances).is_some() {
                        return Err(A::Error::custom(format_args!(
                            "service {name:?} is defined twice; use `instances` for several"
                        )));
                    }
                }
                Ok(services)
            }
        }

        deserializer.deserialize_map(DocumentVisitor).map(Self)
    }
}

/// The value of a service: a URL, one instance, or a list of instances with common fields.
struct Entry {
    fields: Fields,
    list: Option<Vec<Entry>>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    url: Option<ServiceUrl>,
    address: Option<Host>,
    port: Option<Port>,
    scheme: Option<String>,
    path: Option<String>,
    id: Option<String>,
    version: Option<Text>,
    #[serde(default)]
    tags: Vec<Text>,
    #[serde(default)]
    metadata: BTreeMap<String, Text>,
    weight: Option<Weight>,
    zone: Option<Text>,
    health: Option<Health>,
    #[serde(default)]
    ports: BTreeMap<String, Port>,
    instances: Option<Vec<Entry>>,
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct EntryVisitor;

        impl<'de> Visitor<'de> for EntryVisitor {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a URL, an instance with url or address and port, or a list of these")
            }

            fn visit_str<E: serde::de::Error>(self, url: &str) -> Result<Entry, E> {
                let url = ServiceUrl::try_from(url.to_owned()).map_err(E::custom)?;
                let fields = Fields {
                    url: Some(url),
                    ..Fields::default()
                };
                Ok(Entry { fields, list: None })
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Entry, A::Error> {
                let mut list = Vec::new();
                while let Some(entry) = seq.next_element()? {
                    list.push(entry);
                }
                Ok(Entry {
                    fields: Fields::default(),
                    list: Some(list),
                })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Entry, A::Error> {
                let mut fields = Fields::deserialize(MapAccessDeserializer::new(map))?;
                let list = fields.instances.take();
                Ok(Entry { fields, list })
            }
        }

        deserializer.deserialize_any(EntryVisitor)
    }
}

impl Entry {
    fn instances(&self, service: &ServiceName) -> Result<Vec<Arc<Instance>>, Invalid> {
        let Some(list) = &self.list else {
            return Ok(vec![Arc::new(self.instance(service, &Fields::default())?)]);
        };
        let mut instances: Vec<Arc<Instance>> = Vec::with_capacity(list.len());
        for entry in list {
            if entry.list.is_some() {
                return Err(Invalid::new(
                    "instances",
                    "a list inside an instance",
                    "use one list",
                ));
            }
            let instance = entry.instance(service, &self.fields)?;
            if instances.iter().any(|other| other.id() == instance.id()) {
                let id = instance.id().as_str();
                return Err(Invalid::new(
                    "id",
                    id,
                    "two instances have it; use unique ids",
                ));
            }
            instances.push(Arc::new(instance));
        }
        Ok(instances)
    }

    /// The instance; `common` are the fields next to the list that it is in.
    fn instance(&self, service: &ServiceName, common: &Fields) -> Result<Instance, Invalid> {
        let own = &self.fields;
        let mut builder = own.builder(service, common)?;
        if let Some(scheme) = own.scheme.as_ref().or(common.scheme.as_ref()) {
            builder = builder.scheme(scheme);
        }
        if let Some(path) = own.path.as_ref().or(common.path.as_ref()) {
            builder = builder.path_prefix(path);
        }
        if let Some(id) = &own.id {
            builder = builder.id(id.as_str());
        }
        if let Some(version) = own.version.as_ref().or(common.version.as_ref()) {
            builder = builder.version(version.0.as_str());
        }
        if let Some(weight) = own.weight.or(common.weight) {
            builder = builder.weight(weight);
        }
        if let Some(zone) = own.zone.as_ref().or(common.zone.as_ref()) {
            builder = builder.zone(zone.0.as_str());
        }
        if let Some(health) = own.health.or(common.health) {
            builder = builder.health(health);
        }
        for fields in [common, own] {
            builder = builder.tags(fields.tags.iter().map(|tag| tag.0.as_str()));
            let metadata = fields.metadata.iter();
            builder = builder.metadata(metadata.map(|(k, v)| (k.as_str(), v.0.as_str())));
            for (name, port) in &fields.ports {
                builder = builder.named_port(name.as_str(), port.0);
            }
        }
        builder.build()
    }
}

impl Fields {
    /// A builder with the address. A URL overrides address and port; each of the three may also be
    /// among the common fields.
    fn builder(&self, service: &ServiceName, common: &Self) -> Result<InstanceBuilder, Invalid> {
        if let Some(url) = &self.url {
            return Instance::from_url(service.clone(), &url.0);
        }
        match (&self.address, &self.port, &common.url) {
            (None, None, Some(url)) => Instance::from_url(service.clone(), &url.0),
            (address, port, _) => {
                let hint = "set `url`, or `address` and `port`";
                let address = address.as_ref().or(common.address.as_ref());
                let address = address.ok_or_else(|| Invalid::new("address", "", hint))?;
                let port = port.as_ref().or(common.port.as_ref());
                let port = port.ok_or_else(|| Invalid::new("port", "", hint))?;
                Ok(Instance::builder(service.clone(), address.clone(), port.0))
            }
        }
    }
}

/// A URL, validated while it is parsed, so that an error has its line and not that of the entry's
/// end.
#[derive(Deserialize)]
#[serde(try_from = "String")]
struct ServiceUrl(String);

impl TryFrom<String> for ServiceUrl {
    type Error = Invalid;

    fn try_from(url: String) -> Result<Self, Invalid> {
        let placeholder = ServiceName::new("placeholder")?;
        Instance::from_url(placeholder, &url)?.build()?;
        Ok(Self(url))
    }
}

struct Port(u16);

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Text(port) = Text::deserialize(deserializer)?;
        match port.parse() {
            Ok(port) if port != 0 => Ok(Self(port)),
            _ => Err(D::Error::custom(format_args!(
                "{port:?} is not a port; use a number from 1 to 65535"
            ))),
        }
    }
}

/// A string that may be written as an integer or a boolean: `version: 2`.
struct Text(String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl Visitor<'_> for TextVisitor {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_str<E>(self, text: &str) -> Result<Text, E> {
                Ok(Text(text.to_owned()))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Text, E> {
                Ok(Text(value.to_string()))
            }

            fn visit_i64<E>(self, number: i64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }

            fn visit_u64<E>(self, number: u64) -> Result<Text, E> {
                Ok(Text(number.to_string()))
            }

            fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<Text, E> {
                // `1.10` would become `1.1`.
                Err(E::custom(format_args!(
                    "put {number} in quotes: a string is expected"
                )))
            }
        }

        deserializer.deserialize_any(TextVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(name: &str, content: &str) -> Result<Services, ConfigError> {
        parse(Path::new(name), content.as_bytes())
    }

    #[test]
    fn json_and_yaml_give_the_same_services() {
        let json = r#"{
            "auth": {"url": "http://auth-service:5001", "address": "auth-service", "port": 5001},
            "backend": {"address": "backend-service", "port": 5000, "tags": ["x"]},
            "search": {"version": "2.0.0", "metadata": {"region": "eu"}, "instances": [
                {"id": "a", "url": "https://10.0.0.7/v2", "weight": 3, "ports": {"admin": 9300}},
                {"id": "b", "address": "10.0.0.8", "port": 9200, "version": "2.1.0", "zone": "b"}
            ]},
            "short": "http://short:1",
            "none": []
        }"#;
        let yaml = r#"
auth: {url: "http://auth-service:5001", address: auth-service, port: 5001}
backend:
  address: backend-service
  port: 5000
  tags: [x]
search:
  version: 2.0.0
  metadata: {region: eu}
  instances:
    - {id: a, url: "https://10.0.0.7/v2", weight: 3, ports: {admin: 9300}}
    - {id: b, address: 10.0.0.8, port: 9200, version: 2.1.0, zone: b}
short: http://short:1
none: []
"#;
        let services = read("s.json", json).unwrap();
        assert_eq!(services, read("s.yaml", yaml).unwrap());
        let search = &services["search"];
        assert_eq!(search[0].url(), "https://10.0.0.7:443/v2");
        assert_eq!(search[0].version(), Some("2.0.0"));
        assert_eq!(search[0].weight(), Weight::new(3));
        assert_eq!(search[0].named_port("admin"), Some(9300));
        assert_eq!(search[1].version(), Some("2.1.0"));
        assert_eq!(search[1].meta("region"), Some("eu"));
        assert!(services["none"].is_empty());
        for nothing in [
            "",
            "# auth: http://auth\n",
            "---\n",
            "---\n# auth: http://auth\n",
        ] {
            assert!(
                read("empty.yaml", nothing).unwrap().is_empty(),
                "{nothing:?}"
            );
        }
        assert_eq!(services_from_json("a response", json).unwrap(), services);
        let error = services_from_json("the response of zk:2181", "{\n]").unwrap_err();
        assert_eq!(error.location(), "the response of zk:2181:2:1");
    }

    #[test]
    fn an_error_has_the_file_the_line_and_a_hint() {
        for (name, content, location, hint) in [
            (
                "s.json",
                "{\n \"a\": {\"url\": \"http://a:1\",}\n}",
                "s.json:2:",
                "trailing comma",
            ),
            (
                "s.json",
                "{\n \"a\": {\"url\": \"a:b:c\"}\n}",
                "s.json:2:",
                "http://host:port",
            ),
            (
                "s.json",
                "{\"a\": {\"prot\": 1}}",
                "s.json:1:",
                "expected one of `url`",
            ),
            (
                "s.json",
                "{\"a\": {\"address\": \"a\"}}",
                "s.json:1:",
                "`address` and `port`",
            ),
            (
                "s.json",
                "{\"a\": {\"address\": \"a\", \"port\": 0}}",
                "s.json:1:",
                "1 to 65535",
            ),
            (
                "s.json",
                "{\"a\": \"http://a\",\n \"a\": \"http://b\"}",
                "s.json:2:",
                "twice",
            ),
            (
                "s.json",
                "{\"a\": {\"url\": \"http://a\", \"weight\": -1}}",
                "s.json:1:",
                "65535",
            ),
            ("s.json", "[]", "s.json:1:", "services by name"),
            // A program's failure rather than a file without services.
            ("s.json", "null", "s.json:1:", "services by name"),
            ("s.json", "", "s.json:1:", "EOF"),
            ("s.yaml", "[a]\n", "s.yaml:1:", "expected a mapping"),
            (
                "s.yaml",
                "a:\n  url: http://a:1\n  port: high\n",
                "s.yaml:3:",
                "port",
            ),
            ("s.yaml", "a:\n  url: [\n", "s.yaml:", ""),
            (
                "s.yaml",
                "a b: http://a:1\n",
                "s.yaml:1:",
                "' ' is not allowed",
            ),
            (
                "s.yaml",
                "a:\n  - {id: x, url: 'http://a:1'}\n  - {id: x, url: 'http://b:1'}\n",
                "s.yaml",
                "unique",
            ),
            ("s.yaml", &nested_lists(), "s.yaml:1:", "nested too deeply"),
        ] {
            let error = read(name, content).unwrap_err();
            assert!(error.location().starts_with(location), "{error}");
            assert!(error.problem().contains(hint), "{error}");
        }
    }

    fn nested_lists() -> String {
        format!("a: {}{}\n", "[".repeat(100), "]".repeat(100))
    }

    /// As a program writes it, with one anchor for the services' common fields.
    #[test]
    fn a_generated_file_may_have_any_number_of_aliases_of_one_anchor() {
        let mut yaml = "base: &base {address: 10.0.0.7, port: 80, tags: [a, b]}\n".to_owned();
        yaml += "url: &url http://10.0.0.8\n";
        for number in 0..1_000 {
            yaml += &format!("s{number}: *base\n");
        }
        for number in 0..50_000 {
            yaml += &format!("t{number}: *url\n");
        }
        let services = read("s.yaml", &yaml).unwrap();
        assert_eq!(services.len(), 51_002);
        assert_eq!(services["s999"][0].url(), "http://10.0.0.7:80");
        assert_eq!(services["t49999"][0].url(), "http://10.0.0.8:80");
    }
}
