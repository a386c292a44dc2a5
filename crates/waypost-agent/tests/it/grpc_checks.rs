//! gRPC checks against a server with the gRPC health checking protocol.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivateKeyDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use waypost_agent::Agent;

use crate::raw_http::Request;

const SOON: Duration = Duration::from_secs(30);

/// Serves over TLS if there is an acceptor.
async fn serve(listener: TcpListener, tls: Option<TlsAcceptor>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let tls = tls.clone();
        tokio::spawn(async move {
            match tls {
                None => response(stream).await,
                Some(tls) => {
                    // A client that doesn't trust the certificate closes the connection.
                    if let Ok(stream) = tls.accept(stream).await {
                        response(stream).await;
                    }
                }
            }
        });
    }
}

/// Reports `ready` as serving and `broken` as not serving; other services are unknown.
async fn response(stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        tokio::spawn(async move {
            let mut body = request.into_body();
            let question = body.data().await.unwrap().unwrap();
            let service = String::from_utf8_lossy(&question[5..]).into_owned();
            let status: &[u8] = match service.as_str() {
                text if text.ends_with("ready") => &[0, 0, 0, 0, 2, 8, 1],
                text if text.ends_with("broken") => &[0, 0, 0, 0, 2, 8, 2],
                _ => &[],
            };
            let response = http::Response::builder()
                .header("content-type", "application/grpc")
                .body(())
                .unwrap();
            let mut stream = respond.send_response(response, false).unwrap();
            let mut trailers = http::HeaderMap::new();
            if status.is_empty() {
                trailers.insert("grpc-status", 5.into());
                trailers.insert("grpc-message", "unknown service".parse().unwrap());
            } else {
                stream
                    .send_data(Bytes::copy_from_slice(status), false)
                    .unwrap();
                trailers.insert("grpc-status", 0.into());
            }
            stream.send_trailers(trailers).unwrap();
        });
    }
}

/// Registers a service with checks, and waits until all of these outputs are seen. Returns the
/// checks.
async fn checks_with(agent: &Agent, checks: &[String], outputs: &[String]) -> String {
    let body = format!(r#"{{"Name":"web","Checks":[{}]}}"#, checks.join(","));
    let register = Request::new("PUT", "/v1/agent/service/register", &body);
    let response = register.send(agent.http_addr()).await.unwrap();
    assert_eq!(response.status, "200 OK", "{}", response.text());
    let request = Request::new("GET", "/v1/agent/checks", "");
    let seen = async {
        loop {
            let text = request.send(agent.http_addr()).await.unwrap().text();
            if outputs.iter().all(|output| text.contains(output)) {
                return text;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(SOON, seen).await.unwrap()
}

#[tokio::test]
async fn a_grpc_check_has_the_status_that_the_server_reports() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap();
    let server = tokio::spawn(serve(listener, None));
    let agent = Agent::start().await.unwrap();
    let checks = ["ready", "broken", "unknown"]
        .map(|name| format!(r#"{{"CheckID":"{name}","GRPC":"{target}/{name}","Interval":"1h"}}"#));
    let outputs = [
        format!("gRPC check {target}/ready: success"),
        "gRPC application didn't report service healthy".to_owned(),
        "rpc error: code = NotFound desc = unknown service".to_owned(),
    ];
    let text = checks_with(&agent, &checks, &outputs).await;
    assert_eq!(text.matches(r#""Status":"passing""#).count(), 1, "{text}");
    server.abort();
}

#[tokio::test]
async fn an_unknown_certificate_is_accepted_only_if_the_check_skips_verification() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(serve(listener, Some(self_signed())));
    let agent = Agent::start().await.unwrap();
    let target = format!("localhost:{port}/ready");
    let checks = [true, false].map(|skip| {
        format!(
            r#"{{"CheckID":"{skip}","GRPC":"{target}","GRPCUseTLS":true,"TLSSkipVerify":{skip},
                "Interval":"1h"}}"#
        )
    });
    let outputs = [
        format!("gRPC check {target}: success"),
        r#"rpc error: code = Unavailable desc = connection error: desc = \"transport: authentication handshake failed: invalid peer certificate"#.to_owned(),
    ];
    let text = checks_with(&agent, &checks, &outputs).await;
    assert_eq!(text.matches(r#""Status":"passing""#).count(), 1, "{text}");
    server.abort();
}

fn self_signed() -> TlsAcceptor {
    let names = vec!["localhost".to_owned()];
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(names).unwrap();
    let key = PrivateKeyDer::Pkcs8(signing_key.serialize_der().into());
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}
