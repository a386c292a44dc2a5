//! A `tracing` span for each attempt of a gRPC call.

use std::fmt;

use http::{HeaderMap, Response, StatusCode};
use tonic::{Code, Status};
use tracing::field::{Empty, display};
use tracing::{Instrument, Span};
use waypost_core::{Instance, ServiceName};

/// The span of one attempt, with the attributes of OpenTelemetry's semantic conventions for gRPC clients
/// (version 1.23). It costs nothing if no subscriber wants spans of `waypost::grpc` at level info.
///
/// Messages and metadata are not recorded, since they may contain secrets.
pub(super) struct CallSpan(Span);

impl CallSpan {
    /// `path` is the path of the request: `/package.Service/Method`.
    pub(super) fn new(path: &str, service: &ServiceName, instance: &Instance) -> Self {
        let name = path.trim_start_matches('/');
        let (rpc_service, rpc_method) = name.rsplit_once('/').unwrap_or(("", name));
        Self(tracing::info_span!(
            target: "waypost::grpc",
            "gRPC call",
            otel.name = name,
            otel.kind = "client",
            otel.status_code = Empty,
            rpc.system = "grpc",
            rpc.service = rpc_service,
            rpc.method = rpc_method,
            rpc.grpc.status_code = Empty,
            server.address = %instance.host(),
            server.port = instance.port(),
            peer.service = %service,
            "error.type" = Empty,
        ))
    }

    /// Runs a future within the span.
    pub(super) fn instrument<F: Future>(
        &self,
        future: F,
    ) -> impl Future<Output = F::Output> + use<F> {
        future.instrument(self.0.clone())
    }

    /// Records the head of the response: the gRPC status, if there is one, or an HTTP status other than 200,
    /// such as that of a proxy.
    pub(super) fn record_response<B>(&self, response: &Response<B>) {
        if response.status() == StatusCode::OK {
            self.record_status(response.headers());
        } else {
            self.record_error(response.status().as_u16());
        }
    }

    /// Records the gRPC status in these headers or trailers, if there is one.
    pub(super) fn record_status(&self, headers: &HeaderMap) {
        let Some(status) = Status::from_header_map(headers) else {
            return;
        };
        let code = i32::from(status.code());
        self.0.record("rpc.grpc.status_code", code);
        if status.code() != Code::Ok {
            self.record_error(code);
        }
    }

    /// Records why the call failed.
    pub(super) fn record_error(&self, kind: impl fmt::Display) {
        self.0.record("error.type", display(kind));
        self.0.record("otel.status_code", "ERROR");
    }
}
