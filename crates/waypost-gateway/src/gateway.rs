//! The life of a gateway: register, serve, leave in order.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use waypost::{Check, Error, Host, Registrar, ServiceDiscoveryClient, ServiceRegistration};

use crate::config::Config;
use crate::server::{Server, connection};

/// How long to wait when no connection can be taken, as when there are no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How often the registry asks for the gateway's health.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// An API gateway; see the [crate's documentation](crate).
#[derive(Debug)]
pub struct Gateway {
    client: ServiceDiscoveryClient,
    config: Config,
}

impl Gateway {
    /// A gateway to the services that the client discovers.
    pub fn new(client: ServiceDiscoveryClient, config: Config) -> Self {
        Self { client, config }
    }

    /// Registers the gateway and serves until `stop` completes. Then it ends in this order: its
    /// health turns to 503, it is deregistered, the news gets time to spread, no connection is
    /// taken any more, and requests under way go on until they are done or the drain timeout is
    /// over.
    ///
    /// A provider that can't register, such as a file, is no error; a registry that can't be
    /// reached is neither, it will have the gateway when it comes back.
    ///
    /// # Errors
    /// If the configuration or the registration is not valid.
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
            () = running.leave(registrar, stop) => {}
        }
        drop(listener);
        running.drain().await;
        Ok(())
    }
}

/// A gateway that serves.
struct Running {
    gateway: Gateway,
    server: Arc<Server>,
    connections: TaskTracker,
    /// Tells connections to end after the request under way.
    draining: CancellationToken,
    /// Ends what is still open when the time for draining is over.
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
                    let connection = connection(server, stream, peer, self.draining.clone());
                    let closing = self.closing.clone();
                    self.connections.spawn(async move {
                        let _ = closing.run_until_cancelled_owned(connection).await;
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "can't take a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Waits for `stop` and lets everybody know, while connections are still taken.
    async fn leave(&self, registrar: Option<Registrar>, stop: impl Future<Output = ()>) {
        stop.await;
        tracing::info!("stopping");
        self.server.health().set_ready(false);
        if let Some(registrar) = registrar {
            if let Err(error) = registrar.deregister().await {
                tracing::warn!(%error, "could not deregister");
            }
            tokio::time::sleep(self.gateway.config.spread).await;
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
            tracing::warn!(open, "ending connections that were not done in {timeout:?}");
            self.closing.cancel();
            self.connections.wait().await;
        }
    }
}

impl Drop for Running {
    /// Also when nobody waits for the end of [`Gateway::serve`], no connection outlives it.
    fn drop(&mut self) {
        self.closing.cancel();
    }
}
