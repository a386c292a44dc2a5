//! The gateway's lifecycle: register, serve, deregister, drain.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use waypost::{Check, Error, Host, Registrar, ServiceDiscoveryClient, ServiceRegistration};

use crate::config::Config;
use crate::server::{Server, serve_connection};

/// The pause after a failed `accept`, which happens when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often the registry checks the gateway's health.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// An API gateway; see the [crate documentation](crate).
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use tokio::net::TcpListener;
/// use waypost::ServiceDiscoveryClient;
/// use waypost::provider::MemoryProvider;
/// use waypost_gateway::{Config, Gateway};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = MemoryProvider::new();
/// let client = ServiceDiscoveryClient::new(Arc::new(registry));
/// let mut config = Config::default();
/// config.deregistration_delay = Duration::ZERO;
/// let listener = TcpListener::bind("127.0.0.1:0").await?;
/// let stop = std::future::ready(());
/// Gateway::new(client, config).serve(listener, stop).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Gateway {
    client: ServiceDiscoveryClient,
    config: Config,
}

impl Gateway {
    /// Creates a gateway to the services that `client` discovers.
    pub fn new(client: ServiceDiscoveryClient, config: Config) -> Self {
        Self { client, config }
    }

    /// Registers the gateway and serves until `stop` completes, then shuts down in this order: its
    /// health changes to 503; it deregisters; it keeps serving for
    /// [`deregistration_delay`](Config::deregistration_delay); it stops accepting connections; open
    /// requests continue until they are done or [`drain_timeout`](Config::drain_timeout) has passed.
    ///
    /// A provider that can't register, such as a file, is not an error. Neither is a registry that
    /// can't be reached: the registration is retried.
    ///
    /// # Errors
    /// If the configuration or the registration is invalid.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let running = Running::new(self)?;
        let registrar = running.register(&listener)?;
        tokio::select! {
            () = running.accept(&listener) => {}
            () = running.server.routes().follow() => {}
            () = running.shut_down(registrar, stop) => {}
        }
        drop(listener);
        running.drain().await;
        Ok(())
    }
}

/// The state of a gateway while it serves.
struct Running {
    gateway: Gateway,
    server: Arc<Server>,
    connections: TaskTracker,
    /// Cancelled to make connections close after their current request.
    draining: CancellationToken,
    /// Cancelled to close the remaining connections when the drain timeout has passed.
    closing: CancellationToken,
}

impl Running {
    fn new(gateway: Gateway) -> Result<Self, Error> {
        let (connections, closing) = (TaskTracker::new(), CancellationToken::new());
        let (client, config) = (gateway.client.clone(), gateway.config.clone());
        let server = Server::new(client, config, connections.clone(), closing.clone())?;
        Ok(Self {
            gateway,
            server: Arc::new(server),
            connections,
            draining: CancellationToken::new(),
            closing,
        })
    }

    fn register(&self, listener: &TcpListener) -> Result<Option<Registrar>, Error> {
        let Ok(address) = listener.local_addr() else {
            return Ok(None);
        };
        let mut registration =
            ServiceRegistration::new(&self.gateway.config.service, address.port())?
                .tag("gateway")
                .version(env!("CARGO_PKG_VERSION"))
                .check(Check::http("/health").every(CHECK_INTERVAL))
                .health(self.server.health().clone());
        if !address.ip().is_unspecified() {
            registration = registration.host(Host::Ip(address.ip()));
        }
        Registrar::start_if_supported(Arc::clone(self.gateway.client.provider()), registration)
    }

    async fn accept(&self, listener: &TcpListener) {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => {
                    let server = Arc::clone(&self.server);
                    let connection = serve_connection(server, stream, peer, self.draining.clone());
                    let closing = self.closing.clone();
                    self.connections.spawn(async move {
                        let _ = closing.run_until_cancelled_owned(connection).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Waits for `stop`, then fails readiness and deregisters while connections are still accepted.
    async fn shut_down(&self, registrar: Option<Registrar>, stop: impl Future<Output = ()>) {
        stop.await;
        tracing::info!("shutting down");
        self.server.health().set_ready(false);
        if let Some(registrar) = registrar {
            if let Err(error) = registrar.deregister().await {
                tracing::warn!(%error, "deregistration failed");
            }
            tokio::time::sleep(self.gateway.config.deregistration_delay).await;
        }
    }

    async fn drain(&self) {
        self.draining.cancel();
        self.connections.close();
        let timeout = self.gateway.config.drain_timeout;
        if tokio::time::timeout(timeout, self.connections.wait())
            .await
            .is_err()
        {
            let open = self.connections.len();
            tracing::warn!(
                open,
                "drain timeout of {timeout:?} exceeded, closing open connections"
            );
            self.closing.cancel();
            self.connections.wait().await;
        }
    }
}

impl Drop for Running {
    /// Closes all connections even if the future of [`Gateway::serve`] is dropped.
    fn drop(&mut self) {
        self.closing.cancel();
    }
}
