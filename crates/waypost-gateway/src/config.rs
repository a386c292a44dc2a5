//! The settings of a gateway.

use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use waypost::{Environment, ServiceName};

use crate::access_log::AccessLog;
#[cfg(feature = "kubernetes")]
use crate::gateway_api::GatewayApi;
use crate::server_tls::TlsCertificate;

/// The settings of a gateway. Start from the default and change fields:
///
/// ```
/// use std::time::Duration;
///
/// let mut config = waypost_gateway::Config::default();
/// config.trusted_proxies = vec!["10.0.0.0/8".parse()?];
/// config.first_byte_timeout = Duration::from_secs(10);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// The name under which the gateway registers itself. `api-gateway` by default.
    pub service: ServiceName,
    /// How long the gateway keeps accepting connections after it has deregistered, so that its
    /// clients can notice. 1 s by default.
    pub deregistration_delay: Duration,
    /// The time limit for connecting to an instance. 2 s by default.
    pub connect_timeout: Duration,
    /// The time limit for an instance to begin its response, counted from the last byte of the
    /// request. 60 s by default, since a language model may take that long before its first token.
    pub first_byte_timeout: Duration,
    /// How long an instance may send nothing in the middle of its response. 15 minutes by default,
    /// so that quiet event streams survive.
    pub idle_timeout: Duration,
    /// How long a client may send nothing in the middle of its request body. 30 s by default.
    pub upload_idle_timeout: Duration,
    /// How long open requests may continue after the gateway stopped accepting connections. 30 s by
    /// default.
    pub drain_timeout: Duration,
    /// The maximum number of attempts per request, the first included. 3 by default.
    pub max_attempts: u32,
    /// The share of a service's requests within 10 s that may be retried, in addition to 10 retries
    /// per second that are always allowed. 0.2 by default.
    pub retry_ratio: f32,
    /// The largest request body, in bytes, that is buffered for a retry. 64 KiB by default; values
    /// above 2 MiB count as 2 MiB.
    pub replay_limit: usize,
    /// The networks of the proxies in front of the gateway whose `Forwarded` and `X-Forwarded-*`
    /// headers are trusted. Empty by default.
    pub trusted_proxies: Vec<IpNet>,
    /// A PEM file of the certificate authorities that `https` instances are verified with. By default,
    /// `None`, those of the system are used, which `SSL_CERT_FILE` can replace.
    pub ca_file: Option<PathBuf>,
    /// The number of threads that serve clients, each with its own runtime and connections. The number
    /// of cores by default. With 0, clients are served by the runtime in which
    /// [`Gateway::serve`](crate::Gateway::serve) runs.
    pub worker_threads: usize,
    /// Whether other processes listen on the same port with sockets of their own (`SO_REUSEPORT`), such as
    /// the gateway that replaces this one. On Linux, no connection is then reset when this one stops
    /// listening. Must not be set if the listener was inherited, since other processes have the same
    /// socket. `false` by default.
    pub reuse_port: bool,
    /// The maximum number of client connections. Further ones wait until one is closed. By default half
    /// of the file descriptors that the process may open.
    pub max_connections: Option<usize>,
    /// The maximum number of connections from one address. Further ones are closed. Not limited by
    /// default, since many clients may share the address of a proxy.
    pub max_connections_per_address: Option<usize>,
    /// The time limit from the first byte of a request's head to the last. 10 s by default.
    pub head_timeout: Duration,
    /// How long a connection may be idle between two requests. 75 s by default.
    pub keep_alive_timeout: Duration,
    /// How long a client may read nothing of the response. 60 s by default.
    pub write_timeout: Duration,
    /// The minimum rate of a request body in bytes per second, once it has taken longer than
    /// [`upload_idle_timeout`](Self::upload_idle_timeout). 240 by default. Does not apply to gRPC.
    pub min_upload_rate: Option<u64>,
    /// The largest request body in bytes. Not limited by default.
    pub max_body: Option<u64>,
    /// Where requests are logged. Nowhere by default.
    pub access_log: Option<AccessLog>,
    /// The certificates for client connections. They are selected by the name that a client requests; if
    /// none matches, the first is used. They are read again when their files change. Empty by default:
    /// clients then connect without TLS, unless the listeners of the Gateway API have certificates
    /// (`GatewayApi::tls`).
    pub tls: Vec<TlsCertificate>,
    /// A file of routes, YAML or TOML by its name; see the [guide](crate#routes). It is read again when
    /// it changes. None by default.
    pub routes_file: Option<PathBuf>,
    /// The variables that a routes file can name, and those of OpenTelemetry, which the feature `otlp` reads.
    /// Those of this process by default.
    pub environment: Environment,
    /// Whether routes are also read from the tags or metadata of instances: `waypost.path=/billing`,
    /// `waypost.host=billing.example` and `waypost.strip=true`. False by default, since it watches every
    /// service.
    pub routes_from_tags: bool,
    /// The Gateway API of a Kubernetes cluster, from whose HTTPRoutes routes are taken. None by default.
    #[cfg(feature = "kubernetes")]
    pub gateway_api: Option<GatewayApi>,
    /// Whether each discovered service has a route `/{service}/…`. True by default.
    pub discovered_routes: bool,
    /// The only services that have such a route. Empty by default, which means all.
    pub only: Vec<ServiceName>,
    /// Whether the gateway registers itself. True by default.
    pub register: bool,
    /// Whether to call only addresses that an instance in a cluster can have: no loopback or link-local
    /// addresses, and no names from outside of the cluster, which an `ExternalName` Service could point
    /// to anything. False by default; meant for gateways in Kubernetes.
    pub cluster_addresses_only: bool,
    /// Whether `/` shows the routes to every client, with the state and the traffic of their services but
    /// without addresses. False by default; the internal listener shows them in any case.
    pub list_routes: bool,
    /// Whether errors and health pages of the public listener show every client internal details: addresses,
    /// files, and the names of services, instances and other routes. False by default; the access log and the
    /// internal listener always show them.
    pub error_details: bool,
    /// Services that get no route, in addition to the gateway itself. By default `consul`, under which Consul
    /// lists its own servers, and `kubernetes`, the API server: neither is meant for clients of a
    /// gateway.
    pub hidden: Vec<ServiceName>,
}

/// Bounds the memory that one request can hold, whatever is configured.
const MAX_REPLAY_LIMIT: usize = 2 * 1024 * 1024;

impl Config {
    pub(crate) fn bounded_replay_limit(&self) -> usize {
        Self::bound_replay_limit(self.replay_limit)
    }

    pub(crate) fn bound_replay_limit(bytes: usize) -> usize {
        bytes.min(MAX_REPLAY_LIMIT)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            service: valid("api-gateway"),
            deregistration_delay: Duration::from_secs(1),
            connect_timeout: Duration::from_secs(2),
            first_byte_timeout: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(15 * 60),
            upload_idle_timeout: Duration::from_secs(30),
            drain_timeout: Duration::from_secs(30),
            max_attempts: 3,
            retry_ratio: 0.2,
            replay_limit: 64 * 1024,
            trusted_proxies: Vec::new(),
            ca_file: None,
            worker_threads: std::thread::available_parallelism().map_or(1, usize::from),
            reuse_port: false,
            max_connections: None,
            max_connections_per_address: None,
            head_timeout: Duration::from_secs(10),
            keep_alive_timeout: Duration::from_secs(75),
            write_timeout: Duration::from_secs(60),
            min_upload_rate: Some(240),
            max_body: None,
            access_log: None,
            tls: Vec::new(),
            routes_file: None,
            environment: Environment::of_this_process(),
            routes_from_tags: false,
            #[cfg(feature = "kubernetes")]
            gateway_api: None,
            discovered_routes: true,
            only: Vec::new(),
            register: true,
            cluster_addresses_only: false,
            list_routes: false,
            error_details: false,
            hidden: vec![valid("consul"), valid("kubernetes")],
        }
    }
}

impl Config {
    /// Whether listeners of the Gateway API provide certificates for client connections.
    pub(crate) fn serves_tls_listeners(&self) -> bool {
        #[cfg(feature = "kubernetes")]
        return self.gateway_api.as_ref().is_some_and(|api| api.tls);
        #[cfg(not(feature = "kubernetes"))]
        false
    }
}

/// A service name from a literal in this file.
fn valid(name: &str) -> ServiceName {
    ServiceName::new(name).expect("letters and dashes make a valid name")
}
