//! The data about a request and its response, for the access log and the traffic figures.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, Uri, Version};
use tokio::time::Instant;
use waypost::Instance;

use crate::request_body::RequestBody;
use crate::service::Service;

/// What is known about a request and its response.
pub(crate) struct StreamInfo {
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) version: Version,
    pub(crate) request_id: HeaderValue,
    /// The name that the calling service states, if any.
    pub(crate) caller: Option<HeaderValue>,
    /// The name of the route.
    pub(crate) route: Option<Arc<str>>,
    pub(crate) service: Option<Arc<Service>>,
    pub(crate) instance: Option<Arc<Instance>>,
    /// The name of the API key that the client has sent.
    pub(crate) api_key: Option<Arc<str>>,
    pub(crate) attempts: u32,
    /// The age of the data from which the instance was picked, if its registry is failing.
    pub(crate) stale: Option<Duration>,
    pub(crate) status: Option<StatusCode>,
    pub(crate) first_byte: Option<Duration>,
    pub(crate) request_body: Option<RequestBody>,
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
    /// In the middle of its response, the instance sent nothing for as long as the idle timeout.
    IdleTimeout,
    /// The connection was upgraded, and the tunnel has been closed.
    Tunnel,
    /// The gateway shut down while the tunnel was open.
    Shutdown,
}

impl StreamInfo {
    /// The data about a request that begins now.
    pub(crate) fn new(method: Method, uri: Uri, version: Version, request_id: HeaderValue) -> Self {
        Self {
            method,
            uri,
            version,
            request_id,
            caller: None,
            route: None,
            service: None,
            instance: None,
            api_key: None,
            attempts: 0,
            stale: None,
            status: None,
            first_byte: None,
            request_body: None,
            response_bytes: 0,
            end: EndReason::ClientClosed,
            cause: None,
            started: Instant::now(),
        }
    }

    /// Records the status of the response and the time to its first byte.
    pub(crate) fn response_started(&mut self, status: StatusCode) {
        self.status = Some(status);
        self.first_byte = Some(self.elapsed());
    }

    /// The time since the request began.
    pub(crate) fn elapsed(&self) -> Duration {
        self.until(Instant::now())
    }

    /// The time from the beginning of the request to `time`.
    pub(crate) fn until(&self, time: Instant) -> Duration {
        time.saturating_duration_since(self.started)
    }

    /// Whether the service or the gateway failed to send a usable response.
    pub(crate) fn has_failed(&self) -> bool {
        let is_error = self.status.is_some_and(|status| status.is_server_error());
        is_error || matches!(self.end, EndReason::UpstreamBroken | EndReason::IdleTimeout)
    }
}

impl EndReason {
    /// The reason in the access log.
    pub(crate) fn as_str(self) -> &'static str {
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
