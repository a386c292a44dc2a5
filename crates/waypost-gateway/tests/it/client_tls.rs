//! TLS between clients and the gateway.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use waypost_gateway::TlsCertificate;

use crate::support::{Body, Origin, TestGateway, body, pass_time, with_deadline};

/// Writes a certificate for a name and its key to files, and returns the certificate.
fn write_certificate(folder: &Path, name: &str) -> String {
    let pair = rcgen::generate_simple_self_signed([name.to_owned()]).expect("a certificate");
    let write = |ending: &str, text: &str| {
        let new = folder.join("new");
        std::fs::write(&new, text).expect("a file");
        std::fs::rename(&new, folder.join(format!("{name}.{ending}"))).expect("a file");
    };
    write("key", &pair.signing_key.serialize_pem());
    write("crt", &pair.cert.pem());
    pair.cert.pem()
}

fn files(folder: &Path, name: &str) -> TlsCertificate {
    TlsCertificate {
        certificate: folder.join(format!("{name}.crt")),
        key: folder.join(format!("{name}.key")),
    }
}

/// Connects as a client that trusts one certificate only.
pub(crate) async fn connect(
    gateway: &TestGateway,
    name: &str,
    trusted: &str,
    protocols: &[&str],
) -> std::io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    let certificate = CertificateDer::from_pem_slice(trusted.as_bytes()).expect("a certificate");
    roots.add(certificate).expect("a root");
    let mut config = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols
        .iter()
        .map(|name| name.as_bytes().to_vec())
        .collect();
    let stream = TcpStream::connect(gateway.address).await?;
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let connector = TlsConnector::from(Arc::new(config));
    with_deadline("the handshake", connector.connect(name, stream)).await
}

#[tokio::test]
async fn the_certificate_is_that_of_the_name_and_the_protocol_is_negotiated() {
    let folder = tempfile::tempdir().unwrap();
    let shop = write_certificate(folder.path(), "shop.test");
    let api = write_certificate(folder.path(), "api.test");
    let tls = vec![
        files(folder.path(), "shop.test"),
        files(folder.path(), "api.test"),
    ];
    let gateway = TestGateway::start_with(|config| config.tls = tls).await;
    gateway.add("echo", "e", Origin::echo().await.address).await;
    for (name, certificate) in [("shop.test", &shop), ("api.test", &api)] {
        for protocol in ["h2", "http/1.1"] {
            let stream = connect(&gateway, name, certificate, &[protocol])
                .await
                .unwrap();
            assert_eq!(
                stream.get_ref().1.alpn_protocol(),
                Some(protocol.as_bytes())
            );
            let request = Request::get(format!("https://{name}/echo/x"))
                .header("host", name)
                .body(body(""))
                .unwrap();
            let stream = TokioIo::new(stream);
            let response = if protocol == "h2" {
                let (mut sender, connection) = hyper::client::conn::http2::handshake::<_, _, Body>(
                    TokioExecutor::new(),
                    stream,
                )
                .await
                .unwrap();
                tokio::spawn(connection);
                sender.send_request(request).await.unwrap()
            } else {
                let (mut sender, connection) =
                    hyper::client::conn::http1::handshake::<_, Body>(stream)
                        .await
                        .unwrap();
                tokio::spawn(connection);
                sender.send_request(request).await.unwrap()
            };
            let seen = response.into_body().collect().await.unwrap().to_bytes();
            let seen: serde_json::Value = serde_json::from_slice(&seen).unwrap();
            assert_eq!(seen["headers"]["x-forwarded-proto"], "https", "{seen}");
            assert_eq!(seen["headers"]["x-forwarded-host"], name, "{seen}");
            assert_eq!(seen["headers"]["x-forwarded-port"], "443", "{seen}");
        }
    }
    // A client that requests an unknown name gets the first certificate.
    assert!(connect(&gateway, "shop.test", &api, &[]).await.is_err());
}

#[tokio::test]
async fn a_new_certificate_is_used_without_a_restart_and_a_bad_one_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let old = write_certificate(folder.path(), "shop.test");
    let tls = vec![files(folder.path(), "shop.test")];
    let gateway = TestGateway::start_with(|config| config.tls = tls).await;
    assert!(connect(&gateway, "shop.test", &old, &[]).await.is_ok());
    let new = write_certificate(folder.path(), "shop.test");
    with_deadline("the new certificate", async {
        while connect(&gateway, "shop.test", &new, &[]).await.is_err() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    })
    .await;
    std::fs::write(folder.path().join("shop.test.crt"), "no certificate").unwrap();
    tokio::time::sleep(std::time::Duration::from_millis(1500)).await;
    assert!(connect(&gateway, "shop.test", &new, &[]).await.is_ok());
}

#[tokio::test]
async fn an_idle_connection_answers_again_and_ends_as_tls_requires() {
    let folder = tempfile::tempdir().unwrap();
    let shop = write_certificate(folder.path(), "shop.test");
    let tls = vec![files(folder.path(), "shop.test")];
    let mut gateway = TestGateway::start_with(|config| {
        config.tls = tls;
        config.worker_threads = 0;
    })
    .await;
    gateway
        .add("shop", "s", Origin::text("hello").await.address)
        .await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        let client = connect(&gateway, "shop.test", &shop, &["http/1.1"]).await;
        clients.push(client.unwrap());
    }
    for seconds in [0, 30, 1] {
        pass_time(Duration::from_secs(seconds)).await;
        for client in &mut clients {
            let request = "GET /shop/ HTTP/1.1\r\nHost: shop.test\r\n\r\n";
            client.write_all(request.as_bytes()).await.unwrap();
            let mut response = Vec::new();
            while !response.ends_with(b"hello") {
                let read = with_deadline("the response", client.read_buf(&mut response));
                assert_ne!(read.await.unwrap(), 0, "the connection is closed");
            }
        }
    }
    // The first is closed because it is idle, the second because the gateway ends. Without the alert
    // `close_notify`, reading would be an error.
    let mut second = clients.pop().unwrap();
    pass_time(Duration::from_secs(60)).await;
    second
        .write_all(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let mut response = vec![0; 12];
    with_deadline("the response", second.read_exact(&mut response))
        .await
        .unwrap();
    assert_eq!(response, b"HTTP/1.1 200");
    pass_time(Duration::from_secs(30)).await;
    let mut first = clients.pop().unwrap();
    for client in [&mut first, &mut second] {
        let mut rest = Vec::new();
        with_deadline("the end", client.read_to_end(&mut rest))
            .await
            .unwrap();
        gateway.begin_shutdown();
    }
    gateway.stopped().await;
}
