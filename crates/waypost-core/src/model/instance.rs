//! One instance of a service, its id, and its builder.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use url::Url;

use super::health::Health;
use super::host::Host;
use super::invalid::Invalid;
use super::name::ServiceName;
use super::weight::Weight;

/// The identity of an instance among those of its service. It stays the same when address, weight,
/// health or metadata change.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InstanceId(Arc<str>);

impl InstanceId {
    /// An id; any text is valid.
    pub fn new(id: impl Into<Arc<str>>) -> Self {
        Self(id.into())
    }

    /// The id as a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for InstanceId {
    fn from(id: &str) -> Self {
        Self::new(id)
    }
}

impl From<String> for InstanceId {
    fn from(id: String) -> Self {
        Self::new(id)
    }
}

impl Borrow<str> for InstanceId {
    fn borrow(&self) -> &str {
        self.as_str()
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// One instance of a service: its identity, its address, and its properties.
///
/// Its identity is its [`id`](Self::id): an instance with the same id and another weight, health, tag
/// or metadata is an update of the same instance.
///
/// ```
/// # use waypost_core::{Instance, ServiceName};
/// let auth = ServiceName::new("auth")?;
/// let instance = Instance::builder(auth, "10.0.0.7".parse()?, 8080)
///     .id("auth-1")
///     .version("2.0.0")
///     .tag("api")
///     .build()?;
/// assert_eq!(instance.url(), "http://10.0.0.7:8080");
/// assert_eq!(instance.url_for("/users"), "http://10.0.0.7:8080/users");
/// # Ok::<(), waypost_core::Invalid>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Instance {
    id: InstanceId,
    service: ServiceName,
    url: Box<str>,
    scheme: Arc<str>,
    host: Host,
    port: u16,
    path_prefix: Box<str>,
    version: Option<Box<str>>,
    tags: Vec<Box<str>>,
    metadata: BTreeMap<Box<str>, Box<str>>,
    weight: Weight,
    zone: Option<Arc<str>>,
    health: Health,
    ports: BTreeMap<Box<str>, u16>,
}

impl Instance {
    /// A builder for an instance of `service` at `host` and `port`. Defaults: scheme `http`,
    /// weight 1, health [`Health::Unchecked`], and the id `service@host:port`.
    pub fn builder(service: ServiceName, host: Host, port: u16) -> InstanceBuilder {
        InstanceBuilder {
            id: None,
            scheme: "http".into(),
            path_prefix: String::new(),
            instance: Self {
                id: InstanceId::new(""),
                service,
                url: Box::default(),
                scheme: "http".into(),
                host,
                port,
                path_prefix: Box::default(),
                version: None,
                tags: Vec::new(),
                metadata: BTreeMap::new(),
                weight: Weight::default(),
                zone: None,
                health: Health::default(),
                ports: BTreeMap::new(),
            },
        }
    }

    /// A builder for the instance at a URL, such as `http://auth-service:5001` or
    /// `https://billing.example/v2`. Without a port in the URL, the scheme's default port is used.
    ///
    /// # Errors
    /// If the URL is malformed, has no host or port, or contains credentials, a query or a fragment.
    pub fn from_url(service: ServiceName, url: &str) -> Result<InstanceBuilder, Invalid> {
        let refused = |why: &str| Invalid::new("URL", url, why);
        let parsed = Url::parse(url).map_err(|cause| {
            refused(&format!(
                "{cause}; use a form such as http://host:port/path"
            ))
        })?;
        if !parsed.username().is_empty() || parsed.password().is_some() {
            return Err(Invalid::new(
                "URL",
                "(hidden)",
                "it contains a user name or password; send credentials with the request instead",
            ));
        }
        if parsed.query().is_some() || parsed.fragment().is_some() {
            return Err(refused(
                "a service's URL must have no query and no fragment",
            ));
        }
        let host = parsed
            .host_str()
            .filter(|host| !host.is_empty())
            .ok_or_else(|| refused("it has no host; use a form such as http://host:port/path"))?
            .parse()?;
        let port = parsed
            .port()
            .or_else(|| default_port(parsed.scheme()))
            .ok_or_else(|| refused("it has no port, and its scheme has no default port"))?;
        Ok(Self::builder(service, host, port)
            .scheme(parsed.scheme())
            .path_prefix(parsed.path()))
    }

    /// The id, unique among the instances of the service.
    pub fn id(&self) -> &InstanceId {
        &self.id
    }

    /// The name of the service.
    pub fn service(&self) -> &ServiceName {
        &self.service
    }

    /// The scheme: `http`, `https`, `grpc`, ...
    pub fn scheme(&self) -> &str {
        &self.scheme
    }

    /// The IP address or DNS name.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// The main port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `host:port`, as in a URL or a `Host` header.
    pub fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// The socket address, if the host is an IP address.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self.host {
            Host::Ip(ip) => Some(SocketAddr::new(ip, self.port)),
            Host::Name(_) => None,
        }
    }

    /// The path that precedes every request path, such as `/v2`; empty if there is none.
    pub fn path_prefix(&self) -> &str {
        &self.path_prefix
    }

    /// The base URL, without a trailing slash.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The base URL joined with a path by exactly one slash. The path, which may have a query, is
    /// not changed otherwise.
    pub fn url_for(&self, path: &str) -> String {
        let slash = !path.is_empty() && !path.starts_with(['/', '?', '#']);
        let mut url = String::with_capacity(self.url.len() + usize::from(slash) + path.len());
        url.push_str(&self.url);
        if slash {
            url.push('/');
        }
        url.push_str(path);
        url
    }

    /// The version, if there is one.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// The tags, in the order in which they were added.
    pub fn tags(&self) -> impl ExactSizeIterator<Item = &str> {
        self.tags.iter().map(AsRef::as_ref)
    }

    /// Whether the instance has this tag.
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags().any(|other| other == tag)
    }

    /// The metadata, sorted by key.
    pub fn metadata(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.metadata.iter().map(|(k, v)| (k.as_ref(), v.as_ref()))
    }

    /// One value of the metadata.
    pub fn meta(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(AsRef::as_ref)
    }

    /// The share of the traffic.
    pub fn weight(&self) -> Weight {
        self.weight
    }

    /// The zone that the instance runs in, if known.
    pub fn zone(&self) -> Option<&str> {
        self.zone.as_deref()
    }

    /// The health as the registry reports it.
    pub fn health(&self) -> Health {
        self.health
    }

    /// The additional ports, such as `admin`, sorted by name.
    pub fn ports(&self) -> impl ExactSizeIterator<Item = (&str, u16)> {
        self.ports.iter().map(|(name, port)| (name.as_ref(), *port))
    }

    /// One of the additional ports.
    pub fn named_port(&self, name: &str) -> Option<u16> {
        self.ports.get(name).copied()
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    match scheme {
        "http" | "ws" => Some(80),
        "https" | "wss" => Some(443),
        _ => None,
    }
}

/// Builds an [`Instance`]; see [`Instance::builder`].
#[derive(Clone, Debug)]
#[must_use = "call `build` to get the instance"]
pub struct InstanceBuilder {
    id: Option<InstanceId>,
    scheme: String,
    path_prefix: String,
    instance: Instance,
}

impl InstanceBuilder {
    /// Sets the service.
    pub(crate) fn service(mut self, service: ServiceName) -> Self {
        self.instance.service = service;
        self
    }

    /// Sets the id. Default, also for an empty id: `service@host:port`.
    pub fn id(mut self, id: impl Into<InstanceId>) -> Self {
        self.id = Some(id.into()).filter(|id| !id.as_str().is_empty());
        self
    }

    /// Sets the scheme. Default: `http`.
    pub fn scheme(mut self, scheme: impl Into<String>) -> Self {
        self.scheme = scheme.into();
        self
    }

    /// Like [`scheme`](Self::scheme), but validates the scheme immediately. For values that may come
    /// from other programs, such as the metadata in a registry.
    ///
    /// # Errors
    /// If the scheme is not valid; the builder is unchanged.
    pub fn try_scheme(&mut self, scheme: &str) -> Result<(), Invalid> {
        self.scheme = normalized_scheme(scheme)?;
        Ok(())
    }

    /// Like [`path_prefix`](Self::path_prefix), but validates the path immediately; see
    /// [`try_scheme`](Self::try_scheme).
    ///
    /// # Errors
    /// If the path is not valid; the builder is unchanged.
    pub fn try_path_prefix(&mut self, path: &str) -> Result<(), Invalid> {
        self.path_prefix = normalized_prefix(path)?.into();
        Ok(())
    }

    /// Sets the path that precedes every request path. Default: none.
    pub fn path_prefix(mut self, path: impl Into<String>) -> Self {
        self.path_prefix = path.into();
        self
    }

    /// Sets the version.
    pub fn version(mut self, version: impl Into<Box<str>>) -> Self {
        self.instance.version = Some(version.into());
        self
    }

    /// Adds a tag.
    pub fn tag(mut self, tag: impl Into<Box<str>>) -> Self {
        self.instance.tags.push(tag.into());
        self
    }

    /// Adds tags.
    pub fn tags<T: Into<Box<str>>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.instance.tags.extend(tags.into_iter().map(Into::into));
        self
    }

    /// Adds a value to the metadata.
    pub fn meta(mut self, key: impl Into<Box<str>>, value: impl Into<Box<str>>) -> Self {
        self.instance.metadata.insert(key.into(), value.into());
        self
    }

    /// Adds values to the metadata.
    pub fn metadata<K: Into<Box<str>>, V: Into<Box<str>>>(
        mut self,
        metadata: impl IntoIterator<Item = (K, V)>,
    ) -> Self {
        let entries = metadata.into_iter().map(|(k, v)| (k.into(), v.into()));
        self.instance.metadata.extend(entries);
        self
    }

    /// Sets the weight.
    pub fn weight(mut self, weight: Weight) -> Self {
        self.instance.weight = weight;
        self
    }

    /// Sets the zone.
    pub fn zone(mut self, zone: impl Into<Arc<str>>) -> Self {
        self.instance.zone = Some(zone.into());
        self
    }

    /// Sets the health.
    pub fn health(mut self, health: Health) -> Self {
        self.instance.health = health;
        self
    }

    /// Adds an additional port.
    pub fn named_port(mut self, name: impl Into<Box<str>>, port: u16) -> Self {
        self.instance.ports.insert(name.into(), port);
        self
    }

    /// Validates the values and returns the instance.
    ///
    /// # Errors
    /// If the scheme, the port or the path prefix is not valid.
    pub fn build(self) -> Result<Instance, Invalid> {
        let mut instance = self.instance;
        instance.scheme = normalized_scheme(&self.scheme)?.into();
        if instance.port == 0 {
            return Err(Invalid::new("port", "0", "use a number from 1 to 65535"));
        }
        instance.path_prefix = normalized_prefix(&self.path_prefix)?;
        let authority = instance.authority();
        instance.url = format!("{}://{authority}{}", instance.scheme, instance.path_prefix).into();
        instance.id = self
            .id
            .unwrap_or_else(|| InstanceId::new(format!("{}@{authority}", instance.service)));
        Ok(instance)
    }
}

/// The scheme in lower case.
fn normalized_scheme(scheme: &str) -> Result<String, Invalid> {
    let lower = scheme.to_ascii_lowercase();
    if is_scheme(&lower) {
        return Ok(lower);
    }
    Err(Invalid::new(
        "scheme",
        scheme,
        "use a scheme such as http, https or grpc",
    ))
}

/// RFC 3986, section 3.1.
pub(super) fn is_scheme(scheme: &str) -> bool {
    scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '+' | '-' | '.'))
}

/// Starts with a slash and doesn't end with one, so that joining is plain concatenation.
fn normalized_prefix(path: &str) -> Result<Box<str>, Invalid> {
    if path.contains(['?', '#']) || path.contains(char::is_whitespace) {
        return Err(Invalid::new(
            "path prefix",
            path,
            "use a path such as /v2, without query, fragment or spaces",
        ));
    }
    let inner = path.trim_matches('/');
    if inner.is_empty() {
        return Ok(Box::default());
    }
    Ok(format!("/{inner}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service() -> ServiceName {
        ServiceName::new("auth").unwrap()
    }

    #[test]
    fn a_url_and_a_path_are_joined_by_one_slash() {
        let of = |url: &str| Instance::from_url(service(), url).unwrap().build().unwrap();
        for (url, path, joined) in [
            ("http://a:1", "/x", "http://a:1/x"),
            ("http://a:1/", "x", "http://a:1/x"),
            ("http://a:1/v2/", "/x/", "http://a:1/v2/x/"),
            ("http://a:1/v2", "", "http://a:1/v2"),
            ("http://a:1/v2", "?q=1", "http://a:1/v2?q=1"),
            ("http://a", "x//y?z=//", "http://a:80/x//y?z=//"),
            ("https://[::1]/", "/", "https://[::1]:443/"),
        ] {
            assert_eq!(of(url).url_for(path), joined, "{url} + {path}");
        }
    }

    #[test]
    fn an_empty_id_is_replaced_by_the_default() {
        let url = "http://10.0.0.1:80";
        let builder = Instance::from_url(ServiceName::new("auth").unwrap(), url).unwrap();
        let instance = builder.id("").build().unwrap();
        assert_eq!(instance.id().as_str(), "auth@10.0.0.1:80");
        let registration = crate::ServiceRegistration::new("auth", 80).unwrap();
        let registration = registration.host("10.0.0.1".parse().unwrap()).id("");
        let registration = registration.resolve(None).unwrap();
        assert_eq!(registration.instance().id().as_str(), "auth-10.0.0.1-80");
    }

    #[test]
    fn an_invalid_url_is_refused_with_the_reason_and_without_the_password() {
        for (url, hint) in [
            ("auth-service:5001", "http://host:port"),
            ("http://", "host"),
            ("http://a:99999", "port"),
            ("ftp2://a", "no port"),
            ("http://a/?x=1", "no query"),
            ("http://me:secret@a", "credentials"),
        ] {
            let error = Instance::from_url(service(), url).unwrap_err().to_string();
            assert!(error.contains(hint), "{url}: {error}");
            assert!(!error.contains("secret"));
        }
    }

    #[test]
    fn ids_are_found_in_maps_by_their_text() {
        let ids = std::collections::HashSet::from([InstanceId::new("auth-1")]);
        assert!(ids.contains("auth-1"));
        assert!(!ids.contains("auth-2"));
    }

    #[test]
    fn port_zero_is_refused() {
        let host = "a".parse().unwrap();
        assert!(Instance::builder(service(), host, 0).build().is_err());
    }
}
