//! tonic: serves gRPC, with registration for as long as the server runs, and graceful shutdown.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Bytes;
use tokio::net::TcpListener;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::server::{Router, TcpIncoming};
use tower::layer::util::Identity;
use tower::{BoxError, Layer, Service};
use waypost_core::health::HealthChecks;
use waypost_core::provider::Provider;
use waypost_core::{Check, ServiceRegistration};

/// The crate, in the version whose types are used here.
pub use ::tonic;

use super::graceful::Lifecycle;
pub use super::graceful::ServeError;

/// Prepares to serve gRPC services with registration; see [`Serve`].
///
/// ```no_run
/// use waypost::ServiceRegistration;
/// use waypost::integration::tonic_server::serve;
///
/// # async fn example(greeter: tonic::service::Routes) -> Result<(), waypost::integration::tonic_server::ServeError> {
/// let router = tonic::transport::Server::builder().add_routes(greeter);
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:50051").await?;
/// serve(listener, router)
///     .register(ServiceRegistration::new("greeter", 50051)?)
///     .run()
///     .await
/// # }
/// ```
pub fn serve<L>(listener: TcpListener, router: Router<L>) -> Serve<L> {
    Serve {
        listener,
        router,
        lifecycle: Lifecycle::default(),
    }
}

/// gRPC services with the options for serving them; [`run`](Self::run) serves them.
///
/// On SIGTERM or SIGINT (or when the future of [`shutdown_when`](Self::shutdown_when) completes) it shuts
/// down in the same order as with axum, so that no call is lost: its [health](Self::health) is no longer
/// ready; the instance is deregistered; calls are served for the [propagation](Self::propagation) time,
/// until all clients have seen the deregistration; no new connections and calls are accepted, and calls in
/// flight may finish within the [drain](Self::drain) time; `run` returns.
#[must_use = "call `run` to serve"]
pub struct Serve<L = Identity> {
    listener: TcpListener,
    router: Router<L>,
    lifecycle: Lifecycle,
}

impl<L> Serve<L> {
    /// Reports these checks to the registry with each heartbeat. For checks by others, add a service such as
    /// that of the crate `tonic-health` to the router.
    pub fn health(mut self, health: HealthChecks) -> Self {
        self.lifecycle.health = Some(health);
        self
    }

    /// Registers the server while it serves. Missing values are filled in: the listener's port for port 0,
    /// the listener's address as the host unless it is unspecified (such as 0.0.0.0), and a TCP check if
    /// the registration has no checks; [`Check::grpc`] needs a health service in the router. If the provider
    /// can't register services, as in a Kubernetes pod, this is logged, and the services are still served.
    pub fn register(mut self, registration: ServiceRegistration) -> Self {
        self.lifecycle.registration = Some(registration);
        self
    }

    /// Registers with this provider instead of the one that the environment chooses.
    pub fn provider(mut self, provider: Arc<dyn Provider>) -> Self {
        self.lifecycle.provider = Some(provider);
        self
    }

    /// Shuts down when this future completes, instead of on SIGTERM or SIGINT.
    pub fn shutdown_when(mut self, shutdown: impl Future<Output = ()> + Send + 'static) -> Self {
        self.lifecycle.shutdown = Some(Box::pin(shutdown));
        self
    }

    /// How long calls are served after deregistration, until all clients have seen it. 500 ms by default,
    /// which is ample for clients that watch; for clients that use DNS or poll, set it to their TTL or
    /// interval.
    pub fn propagation(mut self, wait: Duration) -> Self {
        self.lifecycle.propagation = wait;
        self
    }

    /// How long calls in flight may take to finish. 10 s by default.
    pub fn drain(mut self, limit: Duration) -> Self {
        self.lifecycle.drain = limit;
        self
    }

    /// Serves until shutdown, then shuts down as described [above](Self).
    ///
    /// # Errors
    /// If the registration or the settings are invalid, the listener has no address, or the server fails.
    pub async fn run<B>(self) -> Result<(), ServeError>
    where
        L: Layer<Routes>,
        L::Service: Service<Request<Body>, Response = Response<B>> + Clone + Send + 'static,
        <L::Service as Service<Request<Body>>>::Future: Send,
        <L::Service as Service<Request<Body>>>::Error: Into<BoxError> + Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let address = self.listener.local_addr()?;
        let running = self.lifecycle.start(address, Check::tcp())?;
        let mut stopped = running.stopped();
        let stopped = async move {
            // An error means that the sender was dropped, which is the signal to stop.
            while stopped.changed().await.is_ok() {}
        };
        let incoming = TcpIncoming::from(self.listener).with_nodelay(Some(true));
        let server = self.router.serve_with_incoming_shutdown(incoming, stopped);
        match running.run(server).await {
            Some(ended) => Ok(ended?),
            None => Ok(()),
        }
    }
}

impl<L> fmt::Debug for Serve<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("listener", &self.listener)
            .field("registration", &self.lifecycle.registration)
            .finish_non_exhaustive()
    }
}
