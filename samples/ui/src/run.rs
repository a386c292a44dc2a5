//! The whole program: listens, registers, serves until told to stop, and leaves in good order.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use waypost::integration::axum::{ServeError, serve};
use waypost::integration::shutdown_signal;
use waypost::{Host, Provider, ServiceDiscoveryClient, ServiceRegistration};

use crate::{DEFAULT_PORT, Error, Peers, SERVICE_NAME, router_until};

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
    /// The services that the page calls.
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
            provider: None,
            peers: Peers::default(),
        }
    }
}

/// Listens, registers, and serves until SIGINT or SIGTERM; then leaves the registry, ends the live
/// pictures, lets requests in flight end, and returns.
///
/// # Errors
/// If the port can't be had or a setting isn't valid. A registry that can't be reached is no error:
/// the page says so, and the service registers as soon as it can.
pub async fn run(config: Config) -> Result<(), Error> {
    run_until(config, shutdown_signal()).await
}

/// As [`run`], until `told` completes instead of until a signal.
///
/// # Errors
/// As [`run`].
pub async fn run_until(
    config: Config,
    told: impl Future<Output = ()> + Send + 'static,
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

    // A live picture never ends by itself, and would be waited for.
    let leaving = CancellationToken::new();
    let app = router_until(&client, &config.peers, leaving.clone())?;
    let told = async move {
        told.await;
        leaving.cancel();
    };
    let server = serve(listener, app)
        .register(registration)
        .provider(Arc::clone(client.provider()))
        .shutdown_when(told);
    server.run().await.map_err(|error| match error {
        ServeError::Discovery(error) => Error::Discovery(error),
        other => Error::Serve(other),
    })
}
