//! Instances with TLS.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use waypost::{Instance, InstanceBuilder, ServiceDiscoveryClient};
use waypost_gateway::{Config, Gateway};

use crate::support::{Origin, TestGateway, instance, with_deadline};

/// Starts a server for `localhost` that responds with the request head it received. Returns its
/// address and certificate.
async fn server() -> (SocketAddr, String) {
    let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let key = PrivatePkcs8KeyDer::from(pair.signing_key.serialize_der());
    let config = ServerConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![pair.cert.der().clone()], key.into())
        .expect("a matching key");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else {
                    return;
                };
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => return,
                    }
                }
                let response = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", head.len());
                let _ = stream.write_all(response.as_bytes()).await;
                let _ = stream.write_all(&head).await;
            });
        }
    });
    (address, pair.cert.pem())
}

fn https_instance(address: SocketAddr) -> InstanceBuilder {
    let url = format!("https://localhost:{}/v2", address.port());
    Instance::from_url("vault".parse().expect("a name"), &url)
        .expect("a URL")
        .id("v")
}

fn write_pem(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("authority.pem");
    std::fs::write(&file, text).expect("a file");
    (folder, file)
}

#[tokio::test]
async fn an_https_instance_is_verified_and_receives_its_own_host() {
    let (address, certificate) = server().await;
    let (_folder, file) = write_pem(&certificate);
    let gateway = TestGateway::start_with(|config| config.ca_file = Some(file)).await;
    gateway.insert(https_instance(address)).await;
    let response = gateway.get("/vault/secret").await;
    assert_eq!(response.status, StatusCode::OK, "{response:?}");
    let head = response.text().to_lowercase();
    assert!(head.starts_with("get /v2/secret http/1.1\r\n"), "{head}");
    assert!(
        head.contains(&format!("\r\nhost: localhost:{}\r\n", address.port())),
        "{head}"
    );
    assert!(
        head.contains(&format!("\r\nx-forwarded-host: {}\r\n", gateway.address)),
        "{head}"
    );
}

#[tokio::test]
async fn an_untrusted_certificate_is_rejected() {
    let (address, _) = server().await;
    let (_, other) = server().await;
    let (_folder, file) = write_pem(&other);
    let gateway = TestGateway::start_with(|config| config.ca_file = Some(file)).await;
    gateway.insert(https_instance(address)).await;
    let response = gateway.get("/vault/secret").await;
    assert_eq!(response.status, StatusCode::SERVICE_UNAVAILABLE);
    let detail = response.json()["detail"].to_string();
    assert!(detail.contains("certificate"), "{detail}");

    let plain = Origin::text("no TLS").await;
    gateway
        .insert(instance("plain", "p", plain.address).scheme("https"))
        .await;
    assert_eq!(
        gateway.get("/plain/").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
}

#[tokio::test]
async fn an_invalid_ca_file_is_an_error_at_startup() {
    let (_folder, empty) = write_pem("not a certificate\n");
    for file in [empty, PathBuf::from("/does/not/exist.pem")] {
        let client =
            ServiceDiscoveryClient::new(Arc::new(waypost::provider::MemoryProvider::new()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut config = Config::default();
        config.ca_file = Some(file.clone());
        let serving = Gateway::new(client, config).serve(listener, std::future::pending());
        let error = with_deadline("the error", serving)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.starts_with(&file.display().to_string()), "{error}");
    }
}
