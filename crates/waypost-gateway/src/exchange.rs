//! The data about a request and its response, for the access log and the traffic figures.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderValue, Method, StatusCode, Uri, Version};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;
use waypost::Instance;

use crate::auth::Identity;
use crate::client::Client;
use crate::request_body::RequestBody;
use crate::routes::Route;
use crate::service::Service;

/// A request and its response. Recorded on drop, so that a request abandoned by its client is recorded
/// too.
pub(crate) struct Exchange {
    pub(crate) client: Arc<Client>,
    pub(crate) method: Method,
    pub(crate) uri: Uri,
    pub(crate) version: Version,
    pub(crate) request_id: HeaderValue,
    /// The name that the calling service states, if any.
    pub(crate) caller: Option<HeaderValue>,
    pub(crate) route: Option<Arc<Route>>,
    pub(crate) service: Option<Arc<Service>>,
    pub(crate) instance: Option<Arc<Instance>>,
    /// Held until the request ends, if its route limits the number of requests.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
    /// What is known about the client, if its route asks for credentials.
    pub(crate) identity: Option<Arc<Identity>>,
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
    /// The instance sent nothing for the idle timeout in the middle of its response.
    IdleTimeout,
    /// The connection was upgraded, and the tunnel has been closed.
    Tunnel,
    /// The gateway shut down while the tunnel was open.
    Shutdown,
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

impl Exchange {
    pub(crate) fn begin(
        client: Arc<Client>,
        method: Method,
        uri: Uri,
        version: Version,
        request_id: HeaderValue,
    ) -> Self {
        client.request_began();
        Self {
            client,
            method,
            uri,
            version,
            request_id,
            caller: None,
            route: None,
            service: None,
            instance: None,
            permit: None,
            identity: None,
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
        self.first_byte = Some(self.started.elapsed());
    }

    /// Whether the service or the gateway failed to send a usable response.
    pub(crate) fn has_failed(&self) -> bool {
        let is_error = self.status.is_some_and(|status| status.is_server_error());
        is_error || matches!(self.end, EndReason::UpstreamBroken | EndReason::IdleTimeout)
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.client.request_ended();
        let duration = self.started.elapsed();
        self.client.worker().record(self, duration);
    }
}
