//! gRPC checks, by the [health checking protocol](https://github.com/grpc/grpc/blob/master/doc/health-checking.md):
//! passing if the server reports that the service is serving.
//!
//! The protocol has one call with one field in each direction, so it is encoded here: a gRPC library
//! would add ten crates.

use std::fmt::{self, Display};

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use percent_encoding::percent_decode_str;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::result::{critical, passing, timeout_of};
use super::tcp::dial_error;
use super::tls;
use crate::store::{CheckDefinition, CheckResult};

/// Longer responses are refused, in bytes.
const MAX_RESPONSE: usize = 4096;

/// A response with `HealthCheckResponse { status: SERVING }`: not compressed, 2 bytes long, and field
/// 1, a number, is 1.
const SERVING: [u8; 7] = [0, 0, 0, 0, 2, 0x08, 1];

pub(super) async fn probe(check: &CheckDefinition) -> CheckResult {
    let (target, service) = check.grpc.split_once('/').unwrap_or((&check.grpc, ""));
    let status = match timeout(timeout_of(check), is_serving(check, target, service)).await {
        Ok(Ok(true)) => return passing(format!("gRPC check {}: success", check.grpc)),
        Ok(Ok(false)) => {
            return critical("gRPC application didn't report service healthy".to_owned());
        }
        Ok(Err(status)) => status,
        Err(_) => Status::new(Status::DEADLINE_EXCEEDED, "context deadline exceeded"),
    };
    critical(status.to_string())
}

async fn is_serving(check: &CheckDefinition, target: &str, service: &str) -> Result<bool, Status> {
    let stream = TcpStream::connect(target).await.map_err(|error| {
        let error = dial_error(target, &error);
        connection_error(format_args!("Error while dialing {error}"))
    })?;
    if !check.grpc_use_tls {
        return call(stream, "http", target, service).await;
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
    call(stream, "https", target, service).await
}

/// Calls the health service over a new connection, so that connecting is checked too.
async fn call(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    scheme: &str,
    target: &str,
    service: &str,
) -> Result<bool, Status> {
    let request = Request::post(format!("{scheme}://{target}/grpc.health.v1.Health/Check"))
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, "trailers")
        .body(Full::new(encode_request(service)))
        .map_err(|error| Status::new(Status::INTERNAL, error))?;
    let broken = |error: hyper::Error| Status::new(Status::UNAVAILABLE, innermost(&error));
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .map_err(broken)?;
    let exchange = async move {
        let (head, body) = sender
            .send_request(request)
            .await
            .map_err(broken)?
            .into_parts();
        let body = Limited::new(body, MAX_RESPONSE).collect().await;
        let body = body.map_err(|error| {
            if error.is::<LengthLimitError>() {
                return Status::new(Status::RESOURCE_EXHAUSTED, "the response is too long");
            }
            Status::new(Status::UNAVAILABLE, innermost(&*error))
        })?;
        // A call that fails before its first message has its status in the headers.
        let status = Status::from_headers(&head.headers)
            .or_else(|| body.trailers().and_then(Status::from_headers))
            .unwrap_or_else(|| Status::from_http(head.status));
        match status.code {
            Status::OK => Ok(body.to_bytes()[..] == SERVING),
            _ => Err(status),
        }
    };
    tokio::select! {
        result = exchange => result,
        ended = connection => Err(ended.map_or_else(broken, |()| {
            Status::new(Status::UNAVAILABLE, "the connection was closed")
        })),
    }
}

/// `HealthCheckRequest { service }`, with the length prefix of gRPC. An empty field is left out.
fn encode_request(service: &str) -> Bytes {
    const FIELD_1_AS_BYTES: u8 = 0x0a;
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(FIELD_1_AS_BYTES);
        let mut length = service.len();
        while length > 0x7f {
            message.put_u8(0x80 | (length & 0x7f) as u8);
            length >>= 7;
        }
        message.put_u8(length as u8);
        message.put_slice(service.as_bytes());
    }
    let mut request = BytesMut::new();
    request.put_u8(0);
    request.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    request.put(message);
    request.freeze()
}

fn connection_error(what: impl Display) -> Status {
    let message = format!("connection error: desc = \"transport: {what}\"");
    Status::new(Status::UNAVAILABLE, message)
}

/// The innermost cause, which names the actual problem.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

/// The status of a call, by its code.
#[derive(Debug)]
struct Status {
    code: usize,
    message: String,
}

impl Status {
    const OK: usize = 0;
    const DEADLINE_EXCEEDED: usize = 4;
    const RESOURCE_EXHAUSTED: usize = 8;
    const INTERNAL: usize = 13;
    const UNAVAILABLE: usize = 14;

    /// The names of the codes in Go.
    const NAMES: [&str; 17] = [
        "OK",
        "Canceled",
        "Unknown",
        "InvalidArgument",
        "DeadlineExceeded",
        "NotFound",
        "AlreadyExists",
        "PermissionDenied",
        "ResourceExhausted",
        "FailedPrecondition",
        "Aborted",
        "OutOfRange",
        "Unimplemented",
        "Internal",
        "Unavailable",
        "DataLoss",
        "Unauthenticated",
    ];

    fn new(code: usize, message: impl Display) -> Self {
        let message = message.to_string();
        Self { code, message }
    }

    /// The status in headers or trailers; `None` if they have none.
    fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let code = text("grpc-status")?.parse().unwrap_or(2);
        let message = percent_decode_str(text("grpc-message").unwrap_or_default());
        Some(Self::new(code, message.decode_utf8_lossy()))
    }

    /// The status of a response without one, by gRPC's mapping of HTTP statuses.
    fn from_http(status: StatusCode) -> Self {
        let code = match status.as_u16() {
            400 => Self::INTERNAL,
            401 => 16,
            403 => 7,
            404 => 12,
            429 | 502..=504 => Self::UNAVAILABLE,
            _ => 2,
        };
        Self::new(
            code,
            format_args!("no gRPC status in a response with HTTP status {status}"),
        )
    }
}

/// As Consul shows it.
impl Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, message } = self;
        match Self::NAMES.get(*code) {
            Some(name) => write!(f, "rpc error: code = {name} desc = {message}"),
            None => write!(f, "rpc error: code = Code({code}) desc = {message}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_name_of_the_service_and_its_length() {
        assert_eq!(*encode_request(""), [0, 0, 0, 0, 0]);
        assert_eq!(*encode_request("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        let short = encode_request(&"a".repeat(127));
        assert_eq!(short[..7], [0, 0, 0, 0, 129, 0x0a, 127]);
        let long = encode_request(&"a".repeat(300));
        assert_eq!(long[..8], [0, 0, 0, 1, 47, 0x0a, 0xac, 2]);
        assert_eq!(long.len(), 5 + 303);
    }

    #[test]
    fn a_response_without_a_grpc_status_gets_the_one_for_its_http_status() {
        for (status, code) in [
            (200, "Unknown"),
            (400, "Internal"),
            (401, "Unauthenticated"),
            (403, "PermissionDenied"),
            (404, "Unimplemented"),
            (429, "Unavailable"),
            (503, "Unavailable"),
        ] {
            let shown = Status::from_http(StatusCode::from_u16(status).unwrap()).to_string();
            let expected = format!("rpc error: code = {code} desc = ");
            assert!(shown.starts_with(&expected), "{status}: {shown}");
        }
    }

    #[test]
    fn a_status_has_the_code_and_the_decoded_message() {
        let status = |pairs: &[(&'static str, &'static str)]| {
            let pairs = pairs.iter().map(|(name, value)| {
                let name = header::HeaderName::from_static(name);
                (name, header::HeaderValue::from_static(value))
            });
            Status::from_headers(&pairs.collect()).map(|status| status.to_string())
        };
        let denied = [("grpc-status", "7"), ("grpc-message", "no%20%C3%A4ccess")];
        let expected = "rpc error: code = PermissionDenied desc = no äccess";
        assert_eq!(status(&denied).as_deref(), Some(expected));
        let unknown = "rpc error: code = Code(99) desc = ";
        assert_eq!(status(&[("grpc-status", "99")]).as_deref(), Some(unknown));
        let malformed = "rpc error: code = Unknown desc = ";
        assert_eq!(status(&[("grpc-status", "x")]).as_deref(), Some(malformed));
        assert_eq!(status(&[]), None);
    }
}
