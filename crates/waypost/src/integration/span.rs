//! A `tracing` span for each attempt of a request.

use std::fmt;

use http::{Method, StatusCode};
use tracing::field::{Empty, display};
use tracing::{Instrument, Span};
use waypost_core::{Instance, ServiceName};

/// The span of one attempt. The methods for gRPC calls are in the tonic integration.
pub(crate) struct AttemptSpan(pub(super) Span);

impl AttemptSpan {
    /// The span of an attempt of an HTTP request, with the attributes of OpenTelemetry's semantic conventions
    /// for HTTP clients (version 1.23). It costs nothing if no subscriber wants spans of `waypost::http` at
    /// level info. `resends` is the number of attempts before this one.
    ///
    /// The URL is not recorded, since its path and query may contain secrets.
    pub(crate) fn http(
        method: &Method,
        service: &ServiceName,
        instance: &Instance,
        resends: usize,
    ) -> Self {
        let method = match method.as_str() {
            known @ ("GET" | "HEAD" | "POST" | "PUT" | "DELETE" | "CONNECT" | "OPTIONS"
            | "TRACE" | "PATCH") => known,
            _ => "_OTHER",
        };
        Self(tracing::info_span!(
            target: "waypost::http",
            "HTTP request",
            otel.name = method,
            otel.kind = "client",
            otel.status_code = Empty,
            http.request.method = method,
            http.request.resend_count = (resends > 0).then_some(resends),
            http.response.status_code = Empty,
            server.address = %instance.host(),
            server.port = instance.port(),
            url.scheme = instance.scheme(),
            peer.service = %service,
            "error.type" = Empty,
        ))
    }

    /// Runs a future within the span.
    pub(crate) fn instrument<F: Future>(
        &self,
        future: F,
    ) -> impl Future<Output = F::Output> + use<F> {
        future.instrument(self.0.clone())
    }

    /// Records the response to an HTTP request.
    pub(crate) fn record_response(&self, status: StatusCode) {
        self.0.record("http.response.status_code", status.as_u16());
        if status.is_client_error() || status.is_server_error() {
            self.record_error(status.as_u16());
        }
    }

    /// Records why the attempt failed.
    pub(crate) fn record_error(&self, kind: impl fmt::Display) {
        self.0.record("error.type", display(kind));
        self.0.record("otel.status_code", "ERROR");
    }
}
