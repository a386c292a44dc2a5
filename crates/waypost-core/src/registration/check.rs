//! The checks by which a registry determines the health of an instance.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::model::{Health, Instance};
use crate::secrets::mask_secrets;

/// A check by which the registry determines the health of an instance.
///
/// ```
/// # use std::time::Duration;
/// # use waypost_core::Check;
/// let http = Check::http("/health").every(Duration::from_secs(5)).with_fall(3).with_rise(2);
/// let with_header = Check::http("/health").method("HEAD").header("x-probe", "consul");
/// let ttl = Check::ttl(Duration::from_secs(30));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "add it to a registration"]
pub struct Check {
    kind: CheckKind,
    interval: Duration,
    timeout: Duration,
    name: Option<String>,
    notes: Option<String>,
    initial_health: Option<Health>,
    rise: Option<u32>,
    fall: Option<u32>,
    tls: bool,
    tls_server_name: Option<String>,
    tls_skip_verify: bool,
}

/// What a [`Check`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CheckKind {
    /// The registry requests a URL of the instance: status 2xx is passing, 429 is a warning, anything
    /// else is critical.
    Http(HttpCheck),
    /// The registry connects to the instance's port.
    Tcp,
    /// The registry calls the standard gRPC health service (`grpc.health.v1.Health`).
    Grpc {
        /// The service to ask about; if empty, the server as a whole.
        service: String,
    },
    /// The registry's agent runs a program: exit code 0 is passing, 1 is a warning, anything else is
    /// critical.
    Script(
        /// The program and its arguments.
        Vec<String>,
    ),
    /// The instance reports its own health by heartbeats; without one for this long it is critical.
    Ttl(
        /// The time to live of a heartbeat. The registrar sends one every third of it.
        Duration,
    ),
}

/// The request of an HTTP check.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpCheck {
    /// A path, or a whole URL.
    target: String,
    method: String,
    headers: BTreeMap<String, Vec<String>>,
    body: Option<String>,
}

impl Check {
    /// An HTTP check of a path such as `/health`, every 10 s with a timeout of 5 s. A whole URL, such
    /// as `http://localhost:9001/health`, is requested unchanged, whatever the instance's address.
    pub fn http(target: impl Into<String>) -> Self {
        Self::new(CheckKind::Http(HttpCheck {
            target: target.into(),
            method: "GET".into(),
            headers: BTreeMap::new(),
            body: None,
        }))
    }

    /// A TCP check every 10 s with a timeout of 5 s.
    pub fn tcp() -> Self {
        Self::new(CheckKind::Tcp)
    }

    /// A gRPC check of a service, or of the server as a whole if `service` is empty, every 10 s with a
    /// timeout of 5 s.
    pub fn grpc(service: impl Into<String>) -> Self {
        Self::new(CheckKind::Grpc {
            service: service.into(),
        })
    }

    /// A program that the registry's agent runs every 10 s with a timeout of 5 s. The agent's
    /// configuration must allow that (`enable_script_checks`).
    pub fn script<A: Into<String>>(arguments: impl IntoIterator<Item = A>) -> Self {
        let arguments = arguments.into_iter().map(Into::into);
        Self::new(CheckKind::Script(arguments.collect()))
    }

    /// A TTL check: the instance reports its own health at least this often.
    pub fn ttl(ttl: Duration) -> Self {
        Self::new(CheckKind::Ttl(ttl))
    }

    fn new(kind: CheckKind) -> Self {
        Self {
            kind,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            name: None,
            notes: None,
            initial_health: None,
            rise: None,
            fall: None,
            tls: false,
            tls_server_name: None,
            tls_skip_verify: false,
        }
    }

    /// Sets the interval, at least 1 s; for a TTL check, the time to live.
    pub fn every(mut self, period: Duration) -> Self {
        match &mut self.kind {
            CheckKind::Ttl(ttl) => *ttl = period,
            _ => self.interval = period,
        }
        self
    }

    /// Sets the timeout of one run.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the name to display.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Sets a comment to display.
    pub fn with_notes(mut self, notes: impl Into<String>) -> Self {
        self.notes = Some(notes.into());
        self
    }

    /// Sets the health until the first run. Default: that of the first report, else critical.
    pub fn with_initial_health(mut self, health: Health) -> Self {
        self.initial_health = Some(health);
        self
    }

    /// Sets how many consecutive successes make a failing check pass. Default: 1.
    pub fn with_rise(mut self, successes: u32) -> Self {
        self.rise = Some(successes);
        self
    }

    /// Sets how many consecutive failures make a passing check critical. Default: 1.
    pub fn with_fall(mut self, failures: u32) -> Self {
        self.fall = Some(failures);
        self
    }

    /// Sets the method of an HTTP check. Default: `GET`. Other checks ignore it.
    pub fn method(mut self, method: impl Into<String>) -> Self {
        if let CheckKind::Http(http) = &mut self.kind {
            http.method = method.into();
        }
        self
    }

    /// Adds a header to the request of an HTTP check. Other checks ignore it.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        if let CheckKind::Http(http) = &mut self.kind {
            let values = http.headers.entry(name.into()).or_default();
            values.push(value.into());
        }
        self
    }

    /// Sets the body of the request of an HTTP check. Other checks ignore it.
    pub fn body(mut self, body: impl Into<String>) -> Self {
        if let CheckKind::Http(http) = &mut self.kind {
            http.body = Some(body.into());
        }
        self
    }

    /// Makes a gRPC check use TLS. An HTTP check does so if the instance's scheme is `https`.
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// Sets the name to expect in the instance's certificate (Consul 1.9 and later).
    pub fn with_tls_server_name(mut self, name: impl Into<String>) -> Self {
        self.tls_server_name = Some(name.into());
        self
    }

    /// Accepts any certificate of the instance.
    pub fn with_tls_skip_verify(mut self) -> Self {
        self.tls_skip_verify = true;
        self
    }

    /// What the check does.
    pub fn kind(&self) -> &CheckKind {
        &self.kind
    }

    /// The interval and the timeout; `None` for a TTL check, which the registry doesn't run.
    pub fn timing(&self) -> Option<(Duration, Duration)> {
        match self.kind {
            CheckKind::Ttl(_) => None,
            _ => Some((self.interval, self.timeout)),
        }
    }

    /// The name to display.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The comment to display.
    pub fn notes(&self) -> Option<&str> {
        self.notes.as_deref()
    }

    /// The health until the first run, if set.
    pub fn initial_health(&self) -> Option<Health> {
        self.initial_health
    }

    /// The number of consecutive successes that make the check pass, if set.
    pub fn rise(&self) -> Option<u32> {
        self.rise
    }

    /// The number of consecutive failures that make the check critical, if set.
    pub fn fall(&self) -> Option<u32> {
        self.fall
    }

    /// Whether a gRPC check uses TLS.
    pub fn uses_tls(&self) -> bool {
        self.tls
    }

    /// The name to expect in the instance's certificate.
    pub fn tls_server_name(&self) -> Option<&str> {
        self.tls_server_name.as_deref()
    }

    /// Whether any certificate of the instance is accepted.
    pub fn skips_tls_verify(&self) -> bool {
        self.tls_skip_verify
    }
}

impl HttpCheck {
    /// The path, or the whole URL, as given.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The URL to request: the target if it is a whole URL, else that path of the instance.
    ///
    /// ```
    /// # use waypost_core::{Check, CheckKind, Instance, ServiceName};
    /// # let service = ServiceName::new("orders")?;
    /// let instance = Instance::builder(service, "10.0.0.7".parse()?, 80).build()?;
    /// let url = |check: Check| match check.kind() {
    ///     CheckKind::Http(http) => http.url(&instance),
    ///     _ => unreachable!(),
    /// };
    /// assert_eq!(url(Check::http("/health")), "http://10.0.0.7:80/health");
    /// assert_eq!(url(Check::http("http://localhost:9001/up")), "http://localhost:9001/up");
    /// # Ok::<(), waypost_core::Invalid>(())
    /// ```
    pub fn url(&self, instance: &Instance) -> String {
        if self.is_url() {
            self.target.clone()
        } else {
            instance.url_for(&self.target)
        }
    }

    /// The path to request, with its query, whether the target is a path or a whole URL.
    pub fn path(&self) -> &str {
        if !self.is_url() {
            return &self.target;
        }
        let rest = self.target.split_once("://").map_or("", |(_, rest)| rest);
        rest.find('/').map_or("/", |start| &rest[start..])
    }

    /// Whether the target begins with a scheme. Otherwise it is a path, with or without a leading slash.
    fn is_url(&self) -> bool {
        let scheme = self.target.split_once("://").map(|(scheme, _)| scheme);
        scheme.is_some_and(|scheme| {
            scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https")
        })
    }

    /// The method.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The headers: name and values, sorted by name.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.headers
            .iter()
            .map(|(name, values)| (name.as_str(), values.as_slice()))
    }

    /// The body, if there is one.
    pub fn body(&self) -> Option<&str> {
        self.body.as_deref()
    }
}

impl fmt::Debug for HttpCheck {
    /// Leaves out header values and the body, because they may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpCheck")
            .field("target", &mask_secrets(&self.target))
            .field("method", &self.method)
            .field("headers", &self.headers.keys())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ServiceName;

    fn http(check: &Check) -> &HttpCheck {
        match check.kind() {
            CheckKind::Http(http) => http,
            kind => panic!("{kind:?}"),
        }
    }

    #[test]
    fn an_http_check_requests_a_path_of_the_instance_or_a_url_as_given() {
        let service = ServiceName::new("orders").unwrap();
        let instance = Instance::builder(service, "10.0.0.7".parse().unwrap(), 80);
        let instance = instance.path_prefix("/v2").build().unwrap();
        for (target, url, path) in [
            ("/health", "http://10.0.0.7:80/v2/health", "/health"),
            (
                "health?x=1",
                "http://10.0.0.7:80/v2/health?x=1",
                "health?x=1",
            ),
            // No scheme that can be requested, so it is a path.
            (
                "/to/ftp://a/b",
                "http://10.0.0.7:80/v2/to/ftp://a/b",
                "/to/ftp://a/b",
            ),
            (
                "http://localhost:9001/up?q",
                "http://localhost:9001/up?q",
                "/up?q",
            ),
            ("HTTPS://localhost", "HTTPS://localhost", "/"),
        ] {
            let check = Check::http(target);
            let http = http(&check);
            assert_eq!(http.target(), target);
            assert_eq!(http.url(&instance), url);
            assert_eq!(http.path(), path);
        }
    }

    #[test]
    fn secrets_of_an_http_check_are_not_printed() {
        let check = Check::http("http://me:hidden@localhost/up")
            .header("authorization", "hidden")
            .body("hidden");
        let debug = format!("{check:?}");
        assert!(debug.contains("localhost/up"), "{debug}");
        assert!(debug.contains("authorization"), "{debug}");
        assert!(!debug.contains("hidden"), "{debug}");
    }

    #[test]
    fn the_period_of_a_ttl_check_is_its_time_to_live() {
        let period = Duration::from_secs(3);
        let ttl = Check::ttl(Duration::from_secs(30)).every(period);
        assert_eq!(ttl.kind(), &CheckKind::Ttl(period));
        assert_eq!(ttl.timing(), None);
        let timeout = Duration::from_secs(1);
        let tcp = Check::tcp().every(period).timeout(timeout);
        assert_eq!(tcp.timing(), Some((period, timeout)));
        let default = (Duration::from_secs(10), Duration::from_secs(5));
        assert_eq!(Check::grpc("").timing(), Some(default));
    }
}
