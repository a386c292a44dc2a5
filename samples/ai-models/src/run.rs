//! Runs the service: listens, registers, and serves until it is stopped.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use waypost::health::CheckFunction;
use waypost::integration::axum::{CrossOriginProtection, Serve, ServeError, serve};
use waypost::provider::Provider;
use waypost::{Check, HealthChecks, Host, ServiceRegistration};

use crate::api;
use crate::catalog::Catalog;
use crate::upstream::Upstream;

/// The default name that the service registers under.
pub const SERVICE_NAME: &str = "ai-models";

/// The default port.
pub const DEFAULT_PORT: u16 = 8002;

/// The interval of the registry's health check. Short, so that the sample shows changes quickly.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// The configuration of the service. The default is suitable for running it on one machine.
#[derive(Debug)]
pub struct Config {
    /// The name to register under. Default: [`SERVICE_NAME`].
    pub name: String,
    /// The address to listen on. Default: 127.0.0.1.
    pub bind: IpAddr,
    /// The port to listen on; 0 for any free port. Default: [`DEFAULT_PORT`].
    pub port: u16,
    /// The address to register, for other services to call. Default: [`bind`](Self::bind).
    pub advertise: Option<Host>,
    /// The instance ID. Default: derived from name, host and port.
    pub instance: Option<String>,
    /// Public host names that browsers may use for the service, in addition to addresses and local
    /// names; see [`CrossOriginProtection`]. Default: none.
    pub allowed_hosts: Vec<String>,
    /// The registry. Default: the one configured by environment variables.
    pub provider: Option<Arc<dyn Provider>>,
    /// A server whose models are offered too; see [`Upstream::from_env`]. Default: none.
    pub upstream: Option<Upstream>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            name: SERVICE_NAME.into(),
            bind: Ipv4Addr::LOCALHOST.into(),
            port: DEFAULT_PORT,
            advertise: None,
            instance: None,
            allowed_hosts: Vec::new(),
            provider: None,
            upstream: None,
        }
    }
}

/// Why the service could not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The address can't be bound: the port is in use, or the address is not of this machine.
    #[error("can't listen on {address}: {cause}")]
    Listen {
        /// The address to listen on.
        address: SocketAddr,
        /// The error of the operating system.
        cause: std::io::Error,
    },
    /// The registration or the registry's settings are not valid, or the listener failed.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Runs the service until SIGINT or SIGTERM; then deregisters, finishes the requests in flight, and
/// returns.
///
/// # Errors
/// If the address can't be bound or a setting is not valid. An unreachable registry is not an
/// error: the service runs, and registers when the registry can be reached.
pub async fn run(config: Config) -> Result<(), RunError> {
    Ok(prepare(config).await?.run().await?)
}

/// Like [`run`], but stops when `shutdown` completes instead of on a signal.
///
/// # Errors
/// The same as for [`run`].
pub async fn run_until(
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), RunError> {
    Ok(prepare(config).await?.shutdown_when(shutdown).run().await?)
}

async fn prepare(config: Config) -> Result<Serve, RunError> {
    let address = SocketAddr::new(config.bind, config.port);
    let listen = async {
        let listener = TcpListener::bind(address).await?;
        let port = listener.local_addr()?.port();
        Ok((listener, port))
    };
    let (listener, port) = listen
        .await
        .map_err(|cause| RunError::Listen { address, cause })?;
    let host = config.advertise.unwrap_or(Host::Ip(config.bind));
    let instance = config
        .instance
        .unwrap_or_else(|| default_instance(&config.name, &host, port));

    let catalog = Arc::new(Catalog::new(config.upstream));
    let mut registration = ServiceRegistration::new(config.name.as_str(), port)
        .map_err(ServeError::from)?
        .id(instance.as_str())
        .version(env!("CARGO_PKG_VERSION"))
        .tag("ai")
        .check(Check::http("/health").every(CHECK_INTERVAL));
    if !is_unspecified(&host) {
        registration = registration.host(host);
    }
    let protection = config.allowed_hosts.into_iter().fold(
        CrossOriginProtection::new(),
        CrossOriginProtection::allow_host,
    );
    let app = api::router(&instance, Arc::clone(&catalog), protection);
    let mut server = serve(listener, app)
        .health(health(&config.name, catalog))
        .register(registration);
    if let Some(provider) = config.provider {
        server = server.provider(provider);
    }
    Ok(server)
}

/// The service is healthy while its local models work. The check of the upstream server is
/// advisory, since the local models work without it.
fn health(name: &str, catalog: Arc<Catalog>) -> HealthChecks {
    let local = Arc::clone(&catalog);
    let health = HealthChecks::new(name).check("models", move || {
        let catalog = Arc::clone(&local);
        async move { catalog.self_test().await.map_err(|problem| problem.detail) }
    });
    if !catalog.has_upstream() {
        return health;
    }
    let upstream = CheckFunction::new("upstream", move || {
        let catalog = Arc::clone(&catalog);
        async move { catalog.upstream_failure().await.map_or(Ok(()), Err) }
    });
    health.with(upstream.advisory())
}

fn is_unspecified(host: &Host) -> bool {
    matches!(host, Host::Ip(ip) if ip.is_unspecified())
}

/// The ID has to be known before the service registers, because responses carry it. It is stable
/// across restarts, and unique across machines.
fn default_instance(name: &str, host: &Host, port: u16) -> String {
    let host = match host {
        Host::Ip(ip) if ip.is_unspecified() || ip.is_loopback() => rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned(),
        host => host.bare(),
    };
    format!("{name}-{host}-{port}")
}
