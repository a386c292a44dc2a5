//! gRPC checks, by the [health checking protocol](https://github.com/grpc/grpc/blob/master/doc/health-checking.md):
//! passing if the server reports that the service is serving.

use std::fmt::Display;

use http::uri::{Scheme, Uri};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tonic::{Code, Status};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tower::service_fn;

use super::result::{critical, passing, timeout_of};
use super::tcp::dial_error;
use super::tls;
use crate::store::{CheckDefinition, CheckResult};

/// Longer responses are refused, in bytes.
const MAX_RESPONSE: usize = 4096;

pub(super) async fn probe(check: &CheckDefinition) -> CheckResult {
    let (target, service) = check.grpc.split_once('/').unwrap_or((&check.grpc, ""));
    let status = match timeout(timeout_of(check), is_serving(check, target, service)).await {
        Ok(Ok(true)) => return passing(format!("gRPC check {}: success", check.grpc)),
        Ok(Ok(false)) => {
            return critical("gRPC application didn't report service healthy".to_owned());
        }
        Ok(Err(status)) => status,
        Err(_) => Status::deadline_exceeded("context deadline exceeded"),
    };
    critical(describe(&status))
}

async fn is_serving(check: &CheckDefinition, target: &str, service: &str) -> Result<bool, Status> {
    let stream = TcpStream::connect(target).await.map_err(|error| {
        let error = dial_error(target, &error);
        connection_error(format_args!("Error while dialing {error}"))
    })?;
    if !check.grpc_use_tls {
        return call(stream, Scheme::HTTP, target, service).await;
    }
    let handshake_error = |error: &dyn Display| {
        connection_error(format_args!("authentication handshake failed: {error}"))
    };
    let host = target.rsplit_once(':').map_or(target, |(host, _)| host);
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
        .map_err(|error| handshake_error(&error))?;
    let config = tls::config(check.tls_skip_verify).map_err(|error| handshake_error(&error))?;
    let stream = TlsConnector::from(config).connect(name, stream).await;
    let stream = stream.map_err(|error| handshake_error(&error))?;
    call(stream, Scheme::HTTPS, target, service).await
}

/// Calls the health service over a new connection, so that connecting is checked too.
async fn call(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    scheme: Scheme,
    target: &str,
    service: &str,
) -> Result<bool, Status> {
    let origin = Uri::builder()
        .scheme(scheme)
        .authority(target)
        .path_and_query("");
    let origin = origin
        .build()
        .map_err(|error| Status::internal(error.to_string()))?;
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(|error| Status::unavailable(error.to_string()))?;
    let transport = service_fn(move |request| sender.clone().send_request(request));
    let mut client =
        HealthClient::with_origin(transport, origin).max_decoding_message_size(MAX_RESPONSE);
    let request = HealthCheckRequest {
        service: service.to_owned(),
    };
    tokio::select! {
        response = client.check(request) => {
            let status = response?.into_inner().status;
            Ok(status == ServingStatus::Serving as i32)
        }
        ended = connection => Err(Status::unavailable(match ended {
            Ok(()) => "the connection was closed".to_owned(),
            Err(error) => error.to_string(),
        })),
    }
}

fn connection_error(what: impl Display) -> Status {
    Status::unavailable(format!("connection error: desc = \"transport: {what}\""))
}

/// A failed call as Consul shows it.
fn describe(status: &Status) -> String {
    let message = status.message();
    match status.code() {
        Code::Cancelled => format!("rpc error: code = Canceled desc = {message}"),
        code => format!("rpc error: code = {code:?} desc = {message}"),
    }
}
