use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::model::Health;

/// How the registry finds out whether an instance is well.
///
/// ```
/// # use std::time::Duration;
/// # use waypost_core::Check;
/// let by_http = Check::http("/health").every(Duration::from_secs(5)).with_fall(3).with_rise(2);
/// let with_details = Check::http("/health").method("HEAD").header("x-probe", "consul");
/// let by_ourselves = Check::ttl(Duration::from_secs(30));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use = "add it to a registration"]
pub struct Check {
    kind: CheckKind,
    interval: Duration,
    timeout: Duration,
    name: Option<String>,
    notes: Option<String>,
    initial: Option<Health>,
    rise: Option<u32>,
    fall: Option<u32>,
    tls: bool,
    tls_server_name: Option<String>,
    tls_skip_verify: bool,
}

/// What a [`Check`] does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckKind {
    /// The registry asks a URL below the instance's: 2xx is passing, 429 a warning, all else
    /// critical.
    Http(HttpCheck),
    /// The registry opens a connection to the instance's port.
    Tcp,
    /// The registry asks the standard gRPC health service.
    Grpc {
        /// The service to ask about; all of them if empty.
        service: String,
    },
    /// The registry's agent runs a program: exit code 0 is passing, 1 a warning, all else critical.
    Script(
        /// The program and its arguments.
        Vec<String>,
    ),
    /// The instance reports by itself; after this time without a report it is critical.
    Ttl(
        /// The time to live of a report. A heartbeat is sent each third of it.
        Duration,
    ),
}

/// The request of an HTTP check.
#[derive(Clone, PartialEq, Eq)]
pub struct HttpCheck {
    path: String,
    method: String,
    headers: BTreeMap<String, Vec<String>>,
    body: Option<String>,
}

impl Check {
    /// An HTTP check of a path such as `/health`, every 10 s with a timeout of 5 s.
    pub fn http(path: impl Into<String>) -> Self {
        Self::of(CheckKind::Http(HttpCheck {
            path: path.into(),
            method: "GET".into(),
            headers: BTreeMap::new(),
            body: None,
        }))
    }

    /// A TCP check every 10 s with a timeout of 5 s.
    pub fn tcp() -> Self {
        Self::of(CheckKind::Tcp)
    }

    /// A gRPC check of a service, or of all if it is empty, every 10 s with a timeout of 5 s.
    pub fn grpc(service: impl Into<String>) -> Self {
        Self::of(CheckKind::Grpc {
            service: service.into(),
        })
    }

    /// A program that the registry's agent runs every 10 s with a timeout of 5 s, if its
    /// configuration allows that (`enable_script_checks`).
    pub fn script<A: Into<String>>(arguments: impl IntoIterator<Item = A>) -> Self {
        let arguments = arguments.into_iter().map(Into::into);
        Self::of(CheckKind::Script(arguments.collect()))
    }

    /// The instance reports by itself at least this often.
    pub fn ttl(ttl: Duration) -> Self {
        Self::of(CheckKind::Ttl(ttl))
    }

    fn of(kind: CheckKind) -> Self {
        Self {
            kind,
            interval: Duration::from_secs(10),
            timeout: Duration::from_secs(5),
            name: None,
            notes: None,
            initial: None,
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

    /// Sets after how long no answer is a failure.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Sets the name that people see.
    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Adds words for people.
    pub fn with_notes(mut self, notes: impl Into<String>) -> Self {
        self.notes = Some(notes.into());
        self
    }

    /// What it says until it has run for the first time; critical unless set.
    pub fn starting_as(mut self, health: Health) -> Self {
        self.initial = Some(health);
        self
    }

    /// How many successes in a row make it pass; 1 unless set.
    pub fn with_rise(mut self, successes: u32) -> Self {
        self.rise = Some(successes);
        self
    }

    /// How many failures in a row make it critical; 1 unless set.
    pub fn with_fall(mut self, failures: u32) -> Self {
        self.fall = Some(failures);
        self
    }

    /// Sets the method of an HTTP check, `GET` unless set.
    pub fn method(mut self, method: impl Into<String>) -> Self {
        if let CheckKind::Http(http) = &mut self.kind {
            http.method = method.into();
        }
        self
    }

    /// Adds a header to the request of an HTTP check.
    pub fn header(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        if let CheckKind::Http(http) = &mut self.kind {
            let values = http.headers.entry(name.into()).or_default();
            values.push(value.into());
        }
        self
    }

    /// Sets the body of the request of an HTTP check.
    pub fn body(mut self, body: impl Into<String>) -> Self {
        if let CheckKind::Http(http) = &mut self.kind {
            http.body = Some(body.into());
        }
        self
    }

    /// Lets a gRPC check use TLS. An HTTP check does if the instance's scheme is `https`.
    pub fn tls(mut self) -> Self {
        self.tls = true;
        self
    }

    /// The name to expect in the instance's certificate (Consul 1.9 and later).
    pub fn expecting_tls_name(mut self, name: impl Into<String>) -> Self {
        self.tls_server_name = Some(name.into());
        self
    }

    /// Takes any certificate of the instance.
    pub fn without_tls_verify(mut self) -> Self {
        self.tls_skip_verify = true;
        self
    }

    /// What it does.
    pub fn kind(&self) -> &CheckKind {
        &self.kind
    }

    /// Its interval and timeout, if the registry runs it.
    pub fn timing(&self) -> Option<(Duration, Duration)> {
        match self.kind {
            CheckKind::Ttl(_) => None,
            _ => Some((self.interval, self.timeout)),
        }
    }

    /// Its name.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Words for people.
    pub fn notes(&self) -> Option<&str> {
        self.notes.as_deref()
    }

    /// What it says until it has run.
    pub fn initial(&self) -> Option<Health> {
        self.initial
    }

    /// How many successes in a row make it pass.
    pub fn rise(&self) -> Option<u32> {
        self.rise
    }

    /// How many failures in a row make it critical.
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

    /// Whether any certificate will do.
    pub fn skips_tls_verify(&self) -> bool {
        self.tls_skip_verify
    }
}

impl HttpCheck {
    /// The path to ask.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The method to ask with.
    pub fn method(&self) -> &str {
        &self.method
    }

    /// The headers to send.
    pub fn headers(&self) -> impl Iterator<Item = (&str, &[String])> {
        self.headers
            .iter()
            .map(|(name, values)| (name.as_str(), values.as_slice()))
    }

    /// The body to send.
    pub fn body(&self) -> Option<&str> {
        self.body.as_deref()
    }
}

impl fmt::Debug for HttpCheck {
    /// Without the values of headers, which may be secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpCheck")
            .field("path", &self.path)
            .field("method", &self.method)
            .field("headers", &self.headers.keys())
            .finish_non_exhaustive()
    }
}
