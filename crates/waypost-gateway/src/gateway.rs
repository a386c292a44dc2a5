//! The gateway's lifecycle: register, serve, deregister, drain.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use waypost::{Check, Error, Host, Registrar, ServiceDiscoveryClient, ServiceRegistration};

use crate::config::Config;
use crate::listener::{Acceptor, Assignment, ConnectionLimits};
use crate::server::Server;
use crate::upstream::Upstream;
use crate::worker::Worker;
use crate::{internal, worker_thread};

/// How often the registry checks the gateway's health.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// How long connections are still served normally after the last one was accepted, because its first
/// request may not have arrived yet.
const LAST_REQUESTS: Duration = Duration::from_millis(100);
/// The file descriptors that are not for clients' connections or for those to instances.
const RESERVED_DESCRIPTORS: u64 = 32;

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
/// let internal = TcpListener::bind("127.0.0.1:0").await?;
/// let stop = std::future::ready(());
/// Gateway::new(client, config)
///     .with_internal(internal)
///     .serve(listener, stop)
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Gateway {
    client: ServiceDiscoveryClient,
    config: Config,
    internal: Option<TcpListener>,
}

impl Gateway {
    /// Creates a gateway to the services that `client` discovers.
    pub fn new(client: ServiceDiscoveryClient, config: Config) -> Self {
        Self {
            client,
            config,
            internal: None,
        }
    }

    /// Serves `/internal/*` and `/metrics` on this listener. Without one, they are not served.
    pub fn with_internal(mut self, listener: TcpListener) -> Self {
        self.internal = Some(listener);
        self
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
    /// If the configuration or the registration is invalid, or a thread can't be started.
    pub async fn serve(
        mut self,
        listener: TcpListener,
        stop: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let internal = self.internal.take();
        let running = Running::new(self)?;
        let pages = internal.as_ref().and_then(|pages| pages.local_addr().ok());
        let registrar = running.register(&listener, pages)?;
        let stop_internal = CancellationToken::new();
        let _stop_internal = stop_internal.clone().drop_guard();
        if let Some(internal) = internal {
            let server = Arc::clone(&running.server);
            tokio::spawn(internal::serve(internal, server, stop_internal));
        }
        {
            let accept = async {
                let Err(error) = running.acceptor.accept(&listener).await;
                tracing::error!(%error, "the listener failed");
            };
            tokio::select! {
                () = accept => {}
                () = running.server.routes().follow() => {}
                () = running.server.routes().follow_file() => {}
                () = running.server.routes().follow_tags() => {}
                () = follow_certificates(&running.server) => {}
                () = follow_http_routes(&running.server) => {}
                () = running.server.traffic().collect_every_second() => {}
                () = running.shut_down(registrar, stop) => {}
            }
        }
        let is_shared = running.server.config().reuse_port;
        if let Err(error) = running.acceptor.accept_rest(listener, is_shared).await {
            tracing::warn!(%error, "accepting the last connections failed");
        }
        tokio::time::sleep(LAST_REQUESTS).await;
        running.drain().await;
        running.server.tracer().shut_down().await;
        Ok(())
    }
}

/// The state of a gateway while it serves.
struct Running {
    gateway: Gateway,
    server: Arc<Server>,
    workers: Vec<Arc<Worker>>,
    acceptor: Acceptor,
    connections: TaskTracker,
    /// Cancelled to close tunnels when the drain timeout has passed.
    closing: CancellationToken,
    /// Ends the workers.
    _stop: DropGuard,
}

impl Running {
    fn new(gateway: Gateway) -> Result<Self, Error> {
        let (connections, closing) = (TaskTracker::new(), CancellationToken::new());
        let (client, config) = (gateway.client.clone(), gateway.config.clone());
        let limits = ConnectionLimits::new(
            config.max_connections.unwrap_or_else(default_connections),
            config.max_connections_per_address,
        );
        let threads = config.worker_threads;
        let server = Server::new(client, config, connections.clone(), closing.clone())?;
        let server = Arc::new(server);
        let stop = CancellationToken::new();
        let _stop = stop.clone().drop_guard();
        let (mut workers, mut assignments) = (Vec::new(), Vec::new());
        for number in 0..threads.max(1) {
            let config = server.config();
            let upstream = Upstream::new(config, Arc::clone(server.client_tls()));
            let counts = server.traffic().add_worker();
            let worker = Arc::new(Worker::new(config, threads, upstream, counts));
            let (sender, accepted) = mpsc::unbounded_channel();
            assignments.push(Assignment {
                accepted: sender,
                open: Arc::new(AtomicUsize::new(0)),
            });
            workers.push(Arc::clone(&worker));
            let work = worker_thread::run(
                Arc::clone(&server),
                worker,
                accepted,
                connections.clone(),
                stop.clone(),
            );
            if threads == 0 {
                tokio::spawn(work);
            } else {
                worker_thread::start(number, work)?;
            }
        }
        Ok(Self {
            gateway,
            server,
            workers,
            acceptor: Acceptor::new(limits, assignments),
            connections,
            closing,
            _stop,
        })
    }

    /// `pages` is the address of the internal pages, which is registered in the metadata.
    fn register(
        &self,
        listener: &TcpListener,
        pages: Option<SocketAddr>,
    ) -> Result<Option<Registrar>, Error> {
        let (true, Ok(address)) = (self.gateway.config.register, listener.local_addr()) else {
            return Ok(None);
        };
        // A registry may not trust the certificate.
        let has_tls = self.server.tls().is_some();
        let health_check = if has_tls {
            Check::tcp()
        } else {
            Check::http("/health")
        };
        let mut registration =
            ServiceRegistration::new(&self.gateway.config.service, address.port())?
                .tag("gateway")
                .version(env!("CARGO_PKG_VERSION"))
                .check(health_check.every(CHECK_INTERVAL))
                .health(self.server.pages().health().clone());
        if has_tls {
            registration = registration.scheme("https");
        }
        if let Some(pages) = pages {
            registration = registration.meta("internal", pages.to_string());
        }
        if !address.ip().is_unspecified() {
            registration = registration.host(Host::Ip(address.ip()));
        }
        Registrar::start_if_supported(Arc::clone(self.gateway.client.provider()), registration)
    }

    /// Waits for `stop`, then fails readiness and deregisters while connections are still accepted.
    async fn shut_down(&self, registrar: Option<Registrar>, stop: impl Future<Output = ()>) {
        stop.await;
        tracing::info!("shutting down");
        self.server.pages().health().set_ready(false);
        if let Some(registrar) = registrar {
            // The registrar logs a failure.
            let _ = registrar.deregister().await;
            tokio::time::sleep(self.gateway.config.deregistration_delay).await;
        }
    }

    async fn drain(&self) {
        self.server.traffic().end();
        for worker in &self.workers {
            worker.drain();
        }
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
            self.close();
            self.connections.wait().await;
        }
    }

    fn close(&self) {
        self.closing.cancel();
        for worker in &self.workers {
            worker.close();
        }
    }
}

impl Drop for Running {
    /// Closes all connections even if the future of [`Gateway::serve`] is dropped.
    fn drop(&mut self) {
        self.close();
    }
}

async fn follow_certificates(server: &Server) {
    match server.tls() {
        Some(tls) => tls.follow_files().await,
        None => std::future::pending().await,
    }
}

#[cfg(feature = "kubernetes")]
async fn follow_http_routes(server: &Server) {
    crate::gateway_api::follow(server.config(), server.routes(), server.tls()).await;
}

#[cfg(not(feature = "kubernetes"))]
async fn follow_http_routes(_: &Server) {
    std::future::pending().await
}

/// Half of the file descriptors that are free: each request may need one to an instance.
fn default_connections() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let free = limit
        .unwrap_or(u64::MAX)
        .saturating_sub(RESERVED_DESCRIPTORS);
    usize::try_from(free / 2).unwrap_or(usize::MAX).max(8)
}
