//! The whole program: listens, registers, serves until told to stop, and leaves in good order.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use waypost::health::CheckFunction;
use waypost::integration::axum::{Serve, ServeError, serve};
use waypost::{Check, HealthChecks, Host, Provider, ServiceRegistration};

use crate::catalog::Catalog;
use crate::{DEFAULT_PORT, SERVICE_NAME, Upstream, api};

/// How often the registry asks. Often, since a sample should show at once what happens.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);

/// How the service runs. The default is what one wants on one machine.
#[derive(Debug)]
pub struct Config {
    /// The name to register under; [`SERVICE_NAME`] unless set.
    pub name: String,
    /// The address to listen on; 127.0.0.1 unless set.
    pub bind: IpAddr,
    /// The port to listen on; [`DEFAULT_PORT`] unless set, and 0 for any that is free.
    pub port: u16,
    /// The address for others to call, if it isn't the one that is listened on.
    pub advertise: Option<Host>,
    /// The instance's id; made of name, host and port unless set.
    pub instance: Option<String>,
    /// The registry; the one that the environment asks for unless set.
    pub provider: Option<Arc<dyn Provider>>,
    /// A server whose models are offered too; see [`Upstream::from_env`].
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
            provider: None,
            upstream: None,
        }
    }
}

/// Why the service could not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The port is taken, or the address isn't one of this machine.
    #[error("can't listen on {address}: {cause}")]
    Listen {
        /// Where it wanted to listen.
        address: SocketAddr,
        /// What the system says.
        cause: std::io::Error,
    },
    /// The registration or the registry's settings are not valid, or the listener failed.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// Listens, registers, and serves until SIGINT or SIGTERM; then leaves the registry, lets requests
/// in flight end, and returns.
///
/// # Errors
/// If the port can't be had or a setting isn't valid. A registry that can't be reached is no error:
/// the service works, and registers as soon as it can.
pub async fn run(config: Config) -> Result<(), RunError> {
    Ok(prepare(config).await?.run().await?)
}

/// As [`run`], until `told` completes instead of until a signal.
///
/// # Errors
/// As [`run`].
pub async fn run_until(
    config: Config,
    told: impl Future<Output = ()> + Send + 'static,
) -> Result<(), RunError> {
    Ok(prepare(config).await?.shutdown_when(told).run().await?)
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
    if !is_anywhere(&host) {
        registration = registration.host(host);
    }
    let mut server = serve(listener, api::router(&instance, catalog.clone()))
        .health(health(&config.name, catalog))
        .register(registration);
    if let Some(provider) = config.provider {
        server = server.provider(provider);
    }
    Ok(server)
}

/// The service is well while its own models answer. An upstream server that is down is worth a
/// warning, and no reason to take the local models out of service.
fn health(name: &str, catalog: Arc<Catalog>) -> HealthChecks {
    let local = catalog.clone();
    let health = HealthChecks::new(name).check("models", move || {
        let catalog = local.clone();
        async move { catalog.self_test().await.map_err(|problem| problem.detail) }
    });
    if !catalog.has_upstream() {
        return health;
    }
    let upstream = CheckFunction::new("upstream", move || {
        let catalog = catalog.clone();
        async move { catalog.upstream_failure().await.map_or(Ok(()), Err) }
    });
    health.with(upstream.advisory())
}

fn is_anywhere(host: &Host) -> bool {
    matches!(host, Host::Ip(ip) if ip.is_unspecified())
}

/// Known before the registry is, since every answer carries it: a restart takes its old place, and
/// two machines never share one.
fn default_instance(name: &str, host: &Host, port: u16) -> String {
    let whose = match host {
        Host::Ip(ip) if ip.is_unspecified() || ip.is_loopback() => rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned(),
        host => host.bare(),
    };
    format!("{name}-{whose}-{port}")
}
