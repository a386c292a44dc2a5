//! One line for each request, written when the last byte has gone or the request has ended
//! otherwise.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode};
use tokio::time::Instant;
use tracing::Level;

/// What the line says. It is written when the value is dropped, so that a request which its
/// client gave up on is logged too.
#[derive(Debug)]
pub(crate) struct AccessLog {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) peer: SocketAddr,
    pub(crate) request_id: HeaderValue,
    pub(crate) route: Option<String>,
    pub(crate) instance: Option<String>,
    pub(crate) attempts: u32,
    /// Age of the answer that the instance was chosen by, if its registry fails.
    pub(crate) stale: Option<Duration>,
    pub(crate) status: Option<StatusCode>,
    pub(crate) first_byte: Option<Duration>,
    pub(crate) request_bytes: Option<Arc<AtomicU64>>,
    pub(crate) response_bytes: u64,
    pub(crate) end: End,
    /// What went wrong on the way, even if another attempt made it good.
    pub(crate) cause: Option<String>,
    started: Instant,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The client went away before it had everything.
    ClientClosed,
    /// The whole response was sent.
    Complete,
    /// The gateway answered by itself: its own page, or a refusal.
    Local(&'static str),
    /// The instance broke its response off.
    UpstreamBroken,
    /// The instance fell silent in the middle of its response.
    IdleTimeout,
    /// The connection became a tunnel, which has ended.
    Tunnel,
    /// The gateway shut down while the tunnel was open.
    Shutdown,
}

impl End {
    fn as_str(self) -> &'static str {
        match self {
            Self::ClientClosed => "client_closed",
            Self::Complete => "complete",
            Self::Local(reason) => reason,
            Self::UpstreamBroken => "upstream_broken",
            Self::IdleTimeout => "idle_timeout",
            Self::Tunnel => "tunnel_closed",
            Self::Shutdown => "shutdown",
        }
    }
}

impl AccessLog {
    pub(crate) fn new(
        method: Method,
        path: String,
        peer: SocketAddr,
        request_id: HeaderValue,
    ) -> Self {
        Self {
            method,
            path,
            peer,
            request_id,
            route: None,
            instance: None,
            attempts: 0,
            stale: None,
            status: None,
            first_byte: None,
            request_bytes: None,
            response_bytes: 0,
            end: End::ClientClosed,
            cause: None,
            started: Instant::now(),
        }
    }

    pub(crate) fn began_to_answer(&mut self, status: StatusCode) {
        self.status = Some(status);
        self.first_byte = Some(self.started.elapsed());
    }
}

/// Registries and runners ask these every second; a line each would bury the requests.
const PROBED: [&str; 4] = ["/health", "/livez", "/readyz", "/internal/health"];

impl Drop for AccessLog {
    fn drop(&mut self) {
        let is_probe = self.route.is_none() && PROBED.contains(&self.path.as_str());
        if is_probe && !tracing::enabled!(target: "waypost_gateway::access", Level::DEBUG) {
            return;
        }
        tracing::info!(
            target: "waypost_gateway::access",
            method = %self.method,
            path = self.path,
            status = self.status.map(|status| status.as_u16()),
            route = self.route,
            instance = self.instance,
            attempts = self.attempts,
            stale_ms = self.stale.map(millis),
            first_byte_ms = self.first_byte.map(millis),
            duration_ms = millis(self.started.elapsed()),
            request_bytes = self.request_bytes.as_ref().map_or(0, |bytes| bytes.load(Ordering::Relaxed)),
            response_bytes = self.response_bytes,
            end = self.end.as_str(),
            cause = self.cause,
            peer = %self.peer,
            request_id = self.request_id.to_str().unwrap_or_default(),
        );
    }
}

/// Milliseconds with three places: exact enough for a loopback, short enough for a line.
fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
