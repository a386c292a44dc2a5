//! The access log: one event per request, emitted when the last byte has been sent or the request
//! has ended early.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode};
use tokio::time::Instant;
use tracing::Level;

/// The entry of one request. It is emitted on drop, so that a request abandoned by its client is
/// logged too.
#[derive(Debug)]
pub(crate) struct AccessLog {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) peer: SocketAddr,
    pub(crate) request_id: HeaderValue,
    pub(crate) route: Option<String>,
    pub(crate) instance: Option<String>,
    pub(crate) attempts: u32,
    /// The age of the data from which the instance was picked, if its registry is failing.
    pub(crate) stale: Option<Duration>,
    pub(crate) status: Option<StatusCode>,
    pub(crate) first_byte: Option<Duration>,
    pub(crate) request_bytes: Option<Arc<AtomicU64>>,
    pub(crate) response_bytes: u64,
    pub(crate) end: EndReason,
    /// The last error, even if a later attempt succeeded.
    pub(crate) cause: Option<String>,
    started: Instant,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EndReason {
    /// The client disconnected before it had received the whole response.
    ClientClosed,
    /// The whole response was sent.
    Complete,
    /// The gateway produced the response itself: one of its own pages, or an error.
    Local(&'static str),
    /// The instance ended its response early.
    UpstreamBroken,
    /// The instance sent nothing for the idle timeout in the middle of its response.
    IdleTimeout,
    /// The connection was upgraded, and the tunnel has been closed.
    Tunnel,
    /// The gateway shut down while the tunnel was open.
    Shutdown,
}

impl EndReason {
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
            end: EndReason::ClientClosed,
            cause: None,
            started: Instant::now(),
        }
    }

    /// Records the status of the response and the time to its first byte.
    pub(crate) fn response_started(&mut self, status: StatusCode) {
        self.status = Some(status);
        self.first_byte = Some(self.started.elapsed());
    }
}

/// Probes of these paths are logged at debug level only: registries and orchestrators send them
/// every few seconds.
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

/// Milliseconds, rounded to microseconds.
fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
