//! axum: health endpoints, registration for as long as the application serves, and graceful shutdown.
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

mod connection;
mod cross_origin;
mod timeouts;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use tokio::net::TcpListener;
use waypost_core::health::HealthChecks;
use waypost_core::provider::Provider;
use waypost_core::{Check, ServiceRegistration};

/// The crate, in the version whose types are used here.
pub use ::axum;

pub use self::cross_origin::CrossOriginProtection;
use self::timeouts::Timeouts;
use super::graceful::Lifecycle;
pub use super::graceful::ServeError;

/// The health endpoints of a service:
///
/// | path | response |
/// |---|---|
/// | `/health`, `/readyz` | the report; 200 if no critical check fails and the service is [ready](HealthChecks::is_ready), else 503 |
/// | `/livez` | always 200 and `{"status": "passing"}`; no check is run, so that a failing dependency doesn't cause a restart |
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
    let status = if report.is_serving() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, [("cache-control", "no-store")], Json(report))
}

/// Prepares to serve an application with registration and health endpoints; see [`Serve`].
pub fn serve(listener: TcpListener, app: Router) -> Serve {
    Serve {
        listener,
        app,
        lifecycle: Lifecycle::default(),
        timeouts: Timeouts::default(),
    }
}

/// An application with the options for serving it; [`run`](Self::run) serves it.
///
/// On SIGTERM or SIGINT (or when the future of [`shutdown_when`](Self::shutdown_when) completes) it
/// shuts down in this order, so that no request is lost:
///
/// 1. readiness fails, so that health checks see the shutdown;
/// 2. the instance is deregistered;
/// 3. requests are served for the [propagation](Self::propagation) time, until all clients have seen
///    the deregistration;
/// 4. no new connections are accepted, and requests in flight may finish within the
///    [drain](Self::drain) time;
/// 5. `run` returns.
///
/// Clients that are too slow are cut off, so that they can't hold connections and memory for long:
/// see [`header_timeout`](Self::header_timeout), [`body_timeout`](Self::body_timeout),
/// [`write_timeout`](Self::write_timeout) and [`idle_timeout`](Self::idle_timeout).
#[must_use = "call `run` to serve the application"]
pub struct Serve {
    listener: TcpListener,
    app: Router,
    lifecycle: Lifecycle,
    timeouts: Timeouts,
}

impl Serve {
    /// Serves these checks at `/health`, `/readyz` and `/livez`. Without this call, an application that
    /// registers has these endpoints without checks.
    pub fn health(mut self, health: HealthChecks) -> Self {
        self.lifecycle.health = Some(health);
        self
    }

    /// Registers the application while it serves. Missing values are filled in: the listener's port
    /// for port 0, the listener's address as the host unless it is unspecified (such as 0.0.0.0), and
    /// an HTTP check of `/health` if the registration has no checks. If the provider can't register
    /// services, as in a Kubernetes pod, this is logged, and the application is still served.
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

    /// How long requests are served after deregistration, until all clients have seen it. 500 ms by
    /// default, which is ample for clients that watch; for clients that use DNS or poll, set it to
    /// their TTL or interval.
    pub fn propagation(mut self, wait: Duration) -> Self {
        self.lifecycle.propagation = wait;
        self
    }

    /// How long requests in flight may take to finish. 10 s by default.
    pub fn drain(mut self, limit: Duration) -> Self {
        self.lifecycle.drain = limit;
        self
    }

    /// How long a client may take to send a request head, from its first byte to its last; then the
    /// connection is closed. 30 s by default. [`Duration::MAX`] means no limit, here and below.
    pub fn header_timeout(mut self, limit: Duration) -> Self {
        self.timeouts.header = limit;
        self
    }

    /// How long the application may wait for a request body in total, plus a second for each KiB that
    /// has arrived. After that, reading the body fails, and the response is a 408 unless the application
    /// responds with success anyway. 30 s by default.
    pub fn body_timeout(mut self, limit: Duration) -> Self {
        self.timeouts.body = limit;
        self
    }

    /// How long a client may read nothing while part of a response waits to be sent; then the
    /// connection is closed. 30 s by default. There is no limit on how long a stream, such as
    /// server-sent events, may be silent.
    pub fn write_timeout(mut self, limit: Duration) -> Self {
        self.timeouts.write = limit;
        self
    }

    /// How long a connection may be idle before its first request and between requests; then it is
    /// closed. 120 s by default, which is longer than clients usually keep idle connections.
    pub fn idle_timeout(mut self, limit: Duration) -> Self {
        self.timeouts.idle = limit;
        self
    }

    /// Serves until shutdown, then shuts down as described [above](Self).
    ///
    /// # Errors
    /// If the registration or the settings are invalid, or the listener has no address.
    pub async fn run(self) -> Result<(), ServeError> {
        let address = self.listener.local_addr()?;
        let (mut app, mut lifecycle) = (self.app, self.lifecycle);
        if let (None, Some(registration)) = (&lifecycle.health, &lifecycle.registration) {
            lifecycle.health = Some(HealthChecks::new(registration.service().as_str()));
        }
        if let Some(health) = &lifecycle.health {
            app = app.merge(health_router(health.clone()));
        }
        let running = lifecycle.start(address, Check::http("/health"))?;
        // It ends only when it is stopped. Dropping this future closes the connections.
        let stopped = running.stopped();
        running
            .run(connection::serve(
                self.listener,
                app,
                self.timeouts,
                stopped,
            ))
            .await;
        Ok(())
    }
}

impl fmt::Debug for Serve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serve")
            .field("listener", &self.listener)
            .field("registration", &self.lifecycle.registration)
            .finish_non_exhaustive()
    }
}
