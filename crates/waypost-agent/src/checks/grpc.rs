//! gRPC checks, by the [health checking protocol](https://github.com/grpc/grpc/blob/master/doc/health-checking.md):
//! passing if the server says that it is serving.

use std::sync::{Arc, OnceLock};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use h2::client;
use http::Request;
use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls_platform_verifier::BuilderVerifierExt;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::tcp::dial_error;
use super::{critical, passing, timeout_of};
use crate::decode::CheckDefinition;
use crate::store::CheckResult;

const METHOD: &str = "/grpc.health.v1.Health/Check";

/// Longer answers are no answers to a health check.
const LONGEST_ANSWER: usize = 4096;

/// `grpc-status` of an answer that is right.
const OK: u32 = 0;

/// The names of the codes, by their numbers.
const CODES: [&str; 17] = [
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

pub(super) async fn probe(check: &CheckDefinition) -> CheckResult {
    let (target, service) = check.grpc.split_once('/').unwrap_or((&check.grpc, ""));
    match timeout(timeout_of(check), ask(check, target, service)).await {
        Ok(Ok(true)) => passing(format!("gRPC check {}: success", check.grpc)),
        Ok(Ok(false)) => critical("gRPC application didn't report service healthy".to_owned()),
        Ok(Err(fault)) => critical(fault),
        Err(_) => critical(status(4, "context deadline exceeded")),
    }
}

async fn ask(check: &CheckDefinition, target: &str, service: &str) -> Result<bool, String> {
    let stream = TcpStream::connect(target).await.map_err(|error| {
        let dial = dial_error(target, &error);
        let words = format!("connection error: desc = \"transport: Error while dialing {dial}\"");
        status(14, &words)
    })?;
    if !check.grpc_use_tls {
        return call(stream, "http", target, service).await;
    }
    let broken = |error: &dyn std::fmt::Display| {
        let words = format!(
            "connection error: desc = \"transport: authentication handshake failed: {error}\""
        );
        status(14, &words)
    };
    let host = target.rsplit_once(':').map_or(target, |(host, _)| host);
    let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned());
    let name = name.map_err(|error| broken(&error))?;
    let config = tls(check.tls_skip_verify).map_err(|error| broken(&error))?;
    let stream = TlsConnector::from(config).connect(name, stream).await;
    let stream = stream.map_err(|error| broken(&error))?;
    call(stream, "https", target, service).await
}

/// Whether the server says that the service is serving.
async fn call(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send,
    scheme: &str,
    target: &str,
    service: &str,
) -> Result<bool, String> {
    let broken = |error: h2::Error| status(14, &error.to_string());
    let (mut sender, connection) = client::handshake(stream).await.map_err(broken)?;
    let exchange = async move {
        let request = Request::post(format!("{scheme}://{target}{METHOD}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(())
            .map_err(|error| status(13, &error.to_string()))?;
        let (response, mut body) = sender.send_request(request, false).map_err(broken)?;
        body.send_data(question(service), true).map_err(broken)?;
        let response = response.await.map_err(broken)?;
        refuse_status(response.headers())?;
        let mut stream = response.into_body();
        let mut answer = BytesMut::new();
        while let Some(chunk) = stream.data().await {
            let chunk = chunk.map_err(broken)?;
            // The window is the server's to fill again.
            let _ = stream.flow_control().release_capacity(chunk.len());
            answer.extend_from_slice(&chunk);
            if answer.len() > LONGEST_ANSWER {
                return Err(status(8, "the answer is too long"));
            }
        }
        if let Some(trailers) = stream.trailers().await.map_err(broken)? {
            refuse_status(&trailers)?;
        }
        Ok(is_serving(answer.freeze()))
    };
    tokio::select! {
        answer = exchange => answer,
        ended = connection => Err(match ended {
            Ok(()) => status(14, "the connection was closed"),
            Err(error) => broken(error),
        }),
    }
}

/// `HealthCheckRequest { service }` in a frame of gRPC.
fn question(service: &str) -> Bytes {
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
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put(message);
    frame.freeze()
}

/// Whether a frame holds `HealthCheckResponse { status: SERVING }`.
fn is_serving(mut frame: Bytes) -> bool {
    const HEADER: usize = 5;
    const FIELD_1_AS_NUMBER: u8 = 0x08;
    const SERVING: u8 = 1;
    if frame.len() < HEADER {
        return false;
    }
    frame.advance(HEADER);
    *frame == [FIELD_1_AS_NUMBER, SERVING]
}

fn refuse_status(headers: &http::HeaderMap) -> Result<(), String> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match text("grpc-status").and_then(|code| code.parse().ok()) {
        None | Some(OK) => Ok(()),
        Some(code) => Err(status(code, text("grpc-message").unwrap_or_default())),
    }
}

/// A failed call in the words of Go's gRPC.
fn status(code: u32, words: &str) -> String {
    let known = usize::try_from(code).ok().and_then(|code| CODES.get(code));
    match known {
        Some(name) => format!("rpc error: code = {name} desc = {words}"),
        None => format!("rpc error: code = Code({code}) desc = {words}"),
    }
}

fn tls(trusts_all: bool) -> Result<Arc<ClientConfig>, rustls::Error> {
    static VERIFYING: OnceLock<Result<Arc<ClientConfig>, rustls::Error>> = OnceLock::new();
    static TRUSTING: OnceLock<Result<Arc<ClientConfig>, rustls::Error>> = OnceLock::new();
    let config = if trusts_all { &TRUSTING } else { &VERIFYING };
    let made = config.get_or_init(|| {
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()?;
        let mut config = match trusts_all {
            true => builder
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(TrustsAll(provider)))
                .with_no_client_auth(),
            false => builder.with_platform_verifier()?.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(Arc::new(config))
    });
    made.clone()
}

/// What `TLSSkipVerify` asks for: any certificate will do.
#[derive(Debug)]
struct TrustsAll(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustsAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &rustls::DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_framed_as_grpc_frames_them() {
        assert_eq!(*question(""), [0, 0, 0, 0, 0]);
        assert_eq!(*question("ab"), [0, 0, 0, 0, 4, 0x0a, 2, b'a', b'b']);
        assert!(is_serving(Bytes::from_static(&[0, 0, 0, 0, 2, 8, 1])));
        assert!(!is_serving(Bytes::from_static(&[0, 0, 0, 0, 2, 8, 2])));
        assert!(!is_serving(Bytes::from_static(&[0, 0, 0])));
    }
}
