//! Runs the service: listens, registers, and serves until it is stopped.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use waypost::integration::axum::{CrossOriginProtection, ServeError, serve};
use waypost::integration::shutdown_signal;
use waypost::provider::Provider;
use waypost::{Host, ServiceDiscoveryClient, ServiceRegistration};

use crate::error::Error;
use crate::router::{Peers, router_until};

/// The default name that the service registers under.
pub const SERVICE_NAME: &str = "ui";

/// The default port.
pub const DEFAULT_PORT: u16 = 3000;

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
    /// The names of the services that the page calls.
    pub peers: Peers,
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
            peers: Peers::default(),
        }
    }
}

/// Runs the service until SIGINT or SIGTERM; then deregisters, ends the event streams, finishes the
/// requests in flight, and returns.
///
/// # Errors
/// If the address can't be bound or a setting is not valid. An unreachable registry is not an
/// error: the page shows it, and the service registers when the registry can be reached.
pub async fn run(config: Config) -> Result<(), Error> {
    run_until(config, shutdown_signal()).await
}

/// Like [`run`], but stops when `shutdown` completes instead of on a signal.
///
/// # Errors
/// The same as for [`run`].
pub async fn run_until(
    config: Config,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), Error> {
    let address = SocketAddr::new(config.bind, config.port);
    let listener = TcpListener::bind(address)
        .await
        .map_err(|cause| Error::Listen { address, cause })?;
    let mut registration = ServiceRegistration::new(config.name.as_str(), config.port)
        .map_err(waypost::Error::from)?
        .version(env!("CARGO_PKG_VERSION"))
        .tag("page");
    if let Some(host) = config.advertise {
        registration = registration.host(host);
    }
    if let Some(instance) = config.instance {
        registration = registration.id(instance);
    }
    let client = match config.provider {
        Some(provider) => ServiceDiscoveryClient::new(provider),
        None => ServiceDiscoveryClient::builder().build()?,
    };

    // Otherwise the shutdown would wait for event streams, which never end on their own.
    let end_streams = CancellationToken::new();
    let app = router_until(&client, &config.peers, end_streams.clone())?;
    let protection = config.allowed_hosts.into_iter().fold(
        CrossOriginProtection::new(),
        CrossOriginProtection::allow_host,
    );
    let app = protection.protect(app);
    let shutdown = async move {
        shutdown.await;
        end_streams.cancel();
    };
    let server = serve(listener, app)
        .register(registration)
        .provider(Arc::clone(client.provider()))
        .shutdown_when(shutdown);
    server.run().await.map_err(|error| match error {
        ServeError::Discovery(error) => Error::Discovery(error),
        other => Error::Serve(other),
    })
}
