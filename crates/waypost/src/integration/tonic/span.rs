//! The spans of gRPC calls.

use http::{HeaderMap, Response, StatusCode};
use tonic::Code;
use tracing::field::Empty;
use waypost_core::{Instance, ServiceName};

use super::outcome::status_code;
use crate::integration::span::AttemptSpan;

impl AttemptSpan {
    /// The span of an attempt of a gRPC call, with the attributes of OpenTelemetry's semantic conventions for
    /// gRPC clients (version 1.23). It costs nothing if no subscriber wants spans of `waypost::grpc` at level
    /// info. `path` is the path of the request: `/package.Service/Method`.
    ///
    /// Messages and metadata are not recorded, since they may contain secrets.
    pub(super) fn grpc(path: &str, service: &ServiceName, instance: &Instance) -> Self {
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

    /// Records the head of the response: the gRPC status, if there is one, or an HTTP status other than 200,
    /// such as that of a proxy.
    pub(super) fn record_grpc_response<B>(&self, response: &Response<B>) {
        if response.status() == StatusCode::OK {
            self.record_grpc_status(response.headers());
        } else {
            self.record_error(response.status().as_u16());
        }
    }

    /// Records the gRPC status in these headers or trailers, if there is one.
    pub(super) fn record_grpc_status(&self, headers: &HeaderMap) {
        let Some(code) = status_code(headers) else {
            return;
        };
        let number = i32::from(code);
        self.0.record("rpc.grpc.status_code", number);
        if code != Code::Ok {
            self.record_error(number);
        }
    }
}
