use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use waypost_core::{ConfigError, Environment, Error};

use super::ConsulProvider;
use super::address::Address;
use super::agents::Agents;
use super::http::Http;
use super::tls::Tls;
use super::token::Token;

/// How up to date a read of Consul must be ("Consistency Modes" in its API documentation).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Consistency {
    /// The leader answers, without asking the other servers.
    #[default]
    Default,
    /// Any server answers, be it behind; this works without a leader too and spreads the load.
    Stale,
    /// The leader answers after it made sure that it still is the leader.
    Consistent,
}

/// Puts a [`ConsulProvider`] together.
///
/// Whatever is not set here is as Consul has it; [`from_environment`](Self::from_environment) takes
/// what the variables of Consul's own tools say.
#[derive(Clone, Debug)]
#[must_use = "a provider comes into being with `build`"]
pub struct ConsulBuilder {
    addresses: Vec<String>,
    token: Secret,
    tls: Tls,
    pub(super) reads: Reads,
    namespace: Option<String>,
    partition: Option<String>,
    connections: usize,
}

/// How services are read.
#[derive(Clone, Debug)]
pub(super) struct Reads {
    pub(super) wait: Duration,
    pub(super) passing_only: bool,
    pub(super) tagged_address: Option<String>,
    datacenter: Option<String>,
    consistency: Consistency,
    tags: Vec<String>,
    filter: Option<String>,
    near: Option<String>,
    node_meta: Vec<(String, String)>,
}

#[derive(Clone)]
enum Secret {
    None,
    Token(String),
    File(PathBuf),
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Token(_) => f.write_str("(hidden)"),
            Self::File(path) => path.fmt(f),
        }
    }
}

impl Default for ConsulBuilder {
    fn default() -> Self {
        Self {
            addresses: Vec::new(),
            token: Secret::None,
            tls: Tls::default(),
            reads: Reads {
                wait: Duration::from_secs(60),
                passing_only: false,
                tagged_address: None,
                datacenter: None,
                consistency: Consistency::Default,
                tags: Vec::new(),
                filter: None,
                near: None,
                node_meta: Vec::new(),
            },
            namespace: None,
            partition: None,
            connections: 100,
        }
    }
}

impl ConsulBuilder {
    /// What the environment says.
    ///
    /// # Errors
    /// If a variable is bad.
    pub fn from_environment(environment: &Environment) -> Result<Self, Error> {
        let text = |name: &str| environment.get(name).map(str::to_owned);
        let path = |name: &str| environment.get(name).map(PathBuf::from);
        let addresses = Address::from_environment(environment)?;
        let token = match text("CONSUL_TOKEN").or_else(|| text("CONSUL_HTTP_TOKEN")) {
            Some(token) => Secret::Token(token),
            None => path("CONSUL_HTTP_TOKEN_FILE").map_or(Secret::None, Secret::File),
        };
        Ok(Self {
            addresses: addresses.iter().map(Address::to_string).collect(),
            token,
            tls: Tls {
                ca_file: path("CONSUL_CACERT"),
                ca_folder: path("CONSUL_CAPATH"),
                client_cert: path("CONSUL_CLIENT_CERT"),
                client_key: path("CONSUL_CLIENT_KEY"),
                server_name: text("CONSUL_TLS_SERVER_NAME"),
                skip_verify: environment.flag("CONSUL_HTTP_SSL_VERIFY")? == Some(false),
            },
            namespace: text("CONSUL_NAMESPACE"),
            partition: text("CONSUL_PARTITION"),
            ..Self::default()
        })
    }

    /// An agent's address: `host`, `host:port`, a URL with `http` or `https`, or
    /// `unix:///path/to/socket`. Set several times, the first is registered with, and if it does
    /// not answer, services are looked up with the others in turn.
    pub fn address(mut self, address: &str) -> Self {
        self.addresses.push(address.to_owned());
        self
    }

    /// The ACL token, sent as a header and never shown.
    pub fn token(mut self, token: &str) -> Self {
        self.token = Secret::Token(token.to_owned());
        self
    }

    /// A file with the ACL token, read again whenever it changes.
    pub fn token_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.token = Secret::File(path.into());
        self
    }

    /// A file of CA certificates in PEM to trust instead of the system's.
    pub fn ca_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls.ca_file = Some(path.into());
        self
    }

    /// A folder of files with CA certificates in PEM to trust instead of the system's.
    pub fn ca_folder(mut self, path: impl Into<PathBuf>) -> Self {
        self.tls.ca_folder = Some(path.into());
        self
    }

    /// Our own certificate and its private key, both in PEM, for an agent that asks for one.
    pub fn client_certificate(
        mut self,
        certificate: impl Into<PathBuf>,
        key: impl Into<PathBuf>,
    ) -> Self {
        self.tls.client_cert = Some(certificate.into());
        self.tls.client_key = Some(key.into());
        self
    }

    /// The name in the agent's certificate, where it is not the one in its address.
    pub fn tls_server_name(mut self, name: &str) -> Self {
        self.tls.server_name = Some(name.to_owned());
        self
    }

    /// Whether the agent's certificate is checked. It is unless set; without, anybody on the way
    /// can read the token.
    pub fn tls_verify(mut self, verify: bool) -> Self {
        self.tls.skip_verify = !verify;
        self
    }

    /// The datacenter to look services up in; the agent's own unless set.
    pub fn datacenter(mut self, datacenter: &str) -> Self {
        self.reads.datacenter = Some(datacenter.to_owned());
        self
    }

    /// The namespace (Consul Enterprise), passed on with every request.
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespace = Some(namespace.to_owned());
        self
    }

    /// The admin partition (Consul Enterprise), passed on with every request.
    pub fn partition(mut self, partition: &str) -> Self {
        self.partition = Some(partition.to_owned());
        self
    }

    /// How up to date a look-up must be.
    pub fn consistency(mut self, consistency: Consistency) -> Self {
        self.reads.consistency = consistency;
        self
    }

    /// Whether an instance with a warning counts as critical. Unless set it takes traffic, as in
    /// Consul's DNS.
    pub fn passing_only(mut self, passing_only: bool) -> Self {
        self.reads.passing_only = passing_only;
        self
    }

    /// Only instances with this tag; set several times, with all of them.
    pub fn tag(mut self, tag: &str) -> Self {
        self.reads.tags.push(tag.to_owned());
        self
    }

    /// Only instances for which this is true, such as `Service.Meta.team == "search"` ("Filtering"
    /// in Consul's API documentation).
    pub fn filter(mut self, expression: &str) -> Self {
        self.reads.filter = Some(expression.to_owned());
        self
    }

    /// Only instances on nodes with this metadata.
    pub fn node_meta(mut self, key: &str, value: &str) -> Self {
        self.reads
            .node_meta
            .push((key.to_owned(), value.to_owned()));
        self
    }

    /// Lets Consul sort by the estimated distance from this node; `_agent` is the agent's own.
    pub fn near(mut self, node: &str) -> Self {
        self.reads.near = Some(node.to_owned());
        self
    }

    /// Uses the address of this tag, such as `wan`, of each instance that has one, or of its node.
    pub fn tagged_address(mut self, tag: &str) -> Self {
        self.reads.tagged_address = Some(tag.to_owned());
        self
    }

    /// How long a blocking query waits for a change: 1 minute unless set, at most 10. A longer
    /// wait costs fewer requests; a shorter one notices a dead connection sooner.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.reads.wait = wait.clamp(Duration::from_secs(1), Duration::from_secs(600));
        self
    }

    /// How many connections may wait for changes at a time: 100 unless set. Each watched service
    /// holds one, and an agent closes those beyond 200 of one address
    /// (`limits.http_max_conns_per_client`). Where more services are watched, they take turns of a
    /// second, so that a change is seen up to 10 s later; raise both numbers to avoid that.
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections;
        self
    }

    /// Makes the provider. Nothing is sent yet. The address is `http://localhost:8500` unless set.
    ///
    /// # Errors
    /// If the address, the token or a certificate is not valid.
    pub fn build(self) -> Result<ConsulProvider, Error> {
        let token = Arc::new(match &self.token {
            Secret::None => Token::None,
            Secret::Token(token) => Token::fixed(token)?,
            Secret::File(path) => Token::file(path)?,
        });
        let mut scope = Vec::new();
        scope.extend(self.namespace.clone().map(|name| ("ns", name)));
        scope.extend(self.partition.clone().map(|name| ("partition", name)));
        let mut addresses = self.addresses.clone();
        if addresses.is_empty() {
            addresses.push("localhost".into());
        }
        let mut all = Vec::with_capacity(addresses.len());
        for address in &addresses {
            let address: Address = address.parse()?;
            let is_plain = matches!(address, Address::Tcp { https: false, .. });
            if is_plain && self.tls.client_cert.is_some() {
                let problem = "a client certificate is set, but this address is not https://";
                return Err(ConfigError::new(address.to_string(), problem).into());
            }
            let token = Arc::clone(&token);
            all.push(Http::new(address, token, &self.tls, scope.clone())?);
        }
        let agents = Agents::new(all, self.connections);
        Ok(ConsulProvider {
            description: agents.describe(),
            agents: Arc::new(agents),
            reads: self.reads,
        })
    }
}

impl Reads {
    /// The query of a read of a service's instances.
    pub(super) fn of_service(&self) -> Vec<(String, String)> {
        let mut query = self.of_names();
        let mut add = |key: &str, value: &str| query.push((key.to_owned(), value.to_owned()));
        for tag in &self.tags {
            add("tag", tag);
        }
        if let Some(filter) = &self.filter {
            add("filter", filter);
        }
        if let Some(near) = &self.near {
            add("near", near);
        }
        query
    }

    /// The query of a read of the services' names.
    pub(super) fn of_names(&self) -> Vec<(String, String)> {
        let mut query = Vec::new();
        let mut add = |key: &str, value: &str| query.push((key.to_owned(), value.to_owned()));
        if let Some(datacenter) = &self.datacenter {
            add("dc", datacenter);
        }
        match self.consistency {
            Consistency::Default => {}
            Consistency::Stale => add("stale", ""),
            Consistency::Consistent => add("consistent", ""),
        }
        for (key, value) in &self.node_meta {
            add("node-meta", &format!("{key}:{value}"));
        }
        query
    }
}
