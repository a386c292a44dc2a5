//! axum: health endpoints, registration tied to the application, and a graceful end.
//!
//! ```no_run
//! use axum::{Router, routing::get};
//! use waypost::{HealthChecks, ServiceRegistration};
//! use waypost::integration::axum::serve;
//!
//! async fn check_database() -> bool { true }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), waypost::integration::axum::ServeError> {
//! let app = Router::new().route("/", get(|| async { "hello" }));
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:8080").await?;
//! serve(listener, app)
//!     .health(HealthChecks::new("my-service").check("database", check_database))
//!     .register(ServiceRegistration::new("my-service", 8080)?.version("1.0.0"))
//!     .run()
//!     .await
//! # }
//! ```

use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use waypost_core::health::HealthChecks;
use waypost_core::provider::Provider;
use waypost_core::{Check, Error, Host, ServiceRegistration};

use crate::global::get_discovery_provider;
use crate::integration::shutdown_signal;
use crate::registrar::Registrar;

/// The health endpoints of a service:
///
/// | path | 200 if | body |
/// |---|---|---|
/// | `/health`, `/readyz` | no critical check fails and the service wants traffic, else 503 | the report |
/// | `/livez` | the process answers at all; no check is run, so that a dead dependency never gets the process killed | `{"status": "passing"}` |
pub fn health_router<S>(health: HealthChecks) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
{
    Router::new()
        .route("/health", get(report))
        .route("/readyz", get(report))
        .route(
            "/livez",
            get(async || Json(serde_json::json!({"status": "passing"}))),
        )
        .with_state(health)
}

async fn report(State(health): State<HealthChecks>) -> impl IntoResponse {
    let report = health.report().await;
    let status = match report.is_serving() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (status, [("cache-control", "no-store")], Json(report))
}

/// Serves an application, registered and with health endpoints, until it is told to stop; see
/// [`Serve`].
pub fn serve(listener: TcpListener, app: Router) -> Serve {
    Serve {
        listener,
        app,
        health: None,
        registration: None,
        provider: None,
        shutdown: None,
        propagation: Duration::from_millis(500),
        drain: Duration::from_secs(10),
    }
}

/// An application about to be served.
///
/// When the process is asked to end (SIGTERM or SIGINT, unless told otherwise), it leaves in the
/// order in which nobody is let down:
///
/// 1. it fails its readiness, so that health checks see that it is going;
/// 2. it deregisters;
/// 3. it goes on serving for the [propagation](Self::propagation) time, until all clients know;
/// 4. it takes no new connections and waits for the requests in flight, at most for the
///    [drain](Self::drain) time;
/// 5. it returns.
#[must_use = "nothing is served before `run`"]
pub struct Serve {
    listener: TcpListener,
    app: Router,
    health: Option<HealthChecks>,
    registration: Option<ServiceRegistration>,
    provider: Option<Arc<dyn Provider>>,
    shutdown: Option<futures_util::future::BoxFuture<'static, ()>>,
    propagation: Duration,
    drain: Duration,
}

impl Serve {
    /// Serves these checks at `/health`, `/readyz` and `/livez`. Without this call the endpoints
    /// are there if the application registers, with no checks.
    pub fn health(mut self, health: HealthChecks) -> Self {
        self.health = Some(health);
        self
    }

    /// Registers the application as long as it serves. What is left open is filled in: port 0 by
    /// the listener's, the host by its address unless it listens on all, and, unless it has checks
    /// of its own, an HTTP check of `/health`. Where there is nothing to register with, such as in
    /// a pod of Kubernetes, which registers by itself, a line of the log says so.
    pub fn register(mut self, registration: ServiceRegistration) -> Self {
        self.registration = Some(registration);
        self
    }

    /// Registers with this provider instead of the one that the environment asks for.
    pub fn provider(mut self, provider: Arc<dyn Provider>) -> Self {
        self.provider = Some(provider);
        self
    }

    /// Ends when this future does, instead of at SIGTERM or SIGINT.
    pub fn shutdown_when(mut self, shutdown: impl Future<Output = ()> + Send + 'static) -> Self {
        self.shutdown = Some(Box::pin(shutdown));
        self
    }

    /// How long it goes on serving after it deregistered: as long as clients may need to hear of
    /// it. 500 ms unless set, which is plenty for clients that watch; with DNS or polling clients
    /// set their TTL or interval.
    pub fn propagation(mut self, wait: Duration) -> Self {
        self.propagation = wait;
        self
    }

    /// How long requests in flight may take to end. 10 s unless set.
    pub fn drain(mut self, limit: Duration) -> Self {
        self.drain = limit;
        self
    }

    /// Serves until told to stop, then ends as described above.
    ///
    /// # Errors
    /// If the registration or the configuration is not valid, or the listener fails.
    pub async fn run(self) -> Result<(), ServeError> {
        let address = self.listener.local_addr()?;
        let mut app = self.app;
        let health = match (self.health, &self.registration) {
            (Some(health), _) => Some(health),
            (None, Some(registration)) => Some(HealthChecks::new(registration.service().as_str())),
            (None, None) => None,
        };
        if let Some(health) = &health {
            app = app.merge(health_router(health.clone()));
        }
        let registrar = match self.registration {
            None => None,
            Some(mut registration) => {
                if let Some(health) = &health {
                    registration = registration.health(health.clone());
                }
                let provider = self.provider.map_or_else(get_discovery_provider, Ok)?;
                Registrar::start_if_supported(provider, filled_in(registration, address))?
            }
        };

        let (stop, stopped) = watch::channel(());
        let server = axum::serve(
            self.listener,
            app.into_make_service_with_connect_info::<SocketAddr>(),
        )
        .with_graceful_shutdown(until_dropped(stopped));
        let mut server = pin!(server.into_future());

        let shutdown = self.shutdown.unwrap_or_else(|| Box::pin(shutdown_signal()));
        tokio::select! {
            // A server that ends by itself has failed.
            failed = &mut server => return Ok(failed?),
            () = shutdown => {}
        }
        let leave = async {
            if let Some(health) = &health {
                health.set_ready(false);
            }
            let Some(registrar) = registrar else { return };
            if registrar.deregister().await.is_ok() {
                sleep(self.propagation).await;
            }
        };
        tokio::select! {
            failed = &mut server => return Ok(failed?),
            () = leave => {}
        }
        drop(stop);
        match timeout(self.drain, server).await {
            Ok(drained) => Ok(drained?),
            Err(_) => {
                tracing::warn!(limit = ?self.drain, "requests still in flight are cut off");
                Ok(())
            }
        }
    }
}

impl fmt::Debug for Serve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("listener", &self.listener)
            .field("registration", &self.registration)
            .finish_non_exhaustive()
    }
}

fn filled_in(mut registration: ServiceRegistration, address: SocketAddr) -> ServiceRegistration {
    registration = registration.port_if_unset(address.port());
    if !registration.has_host() && !address.ip().is_unspecified() {
        registration = registration.host(Host::Ip(address.ip()));
    }
    match registration.has_checks() {
        true => registration,
        false => registration.check(Check::http("/health")),
    }
}

async fn until_dropped(mut stopped: watch::Receiver<()>) {
    // An error is what is waited for: the sender is gone.
    while stopped.changed().await.is_ok() {}
}

/// Why an application could not be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The registration or the configuration is not valid.
    #[error(transparent)]
    Discovery(#[from] Error),
    /// The listener failed.
    #[error("the listener failed: {0}")]
    Io(#[from] std::io::Error),
}

impl From<waypost_core::Invalid> for ServeError {
    fn from(invalid: waypost_core::Invalid) -> Self {
        Self::Discovery(invalid.into())
    }
}
