//! Upgraded connections, such as WebSockets.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Origin, RawClient, RawOrigin, TestGateway, unused_address};

const HANDSHAKE: &str = "GET /chat/room HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n\
                         Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Accepts the upgrade, then echoes everything in capitals.
async fn upper_case_echo() -> RawOrigin {
    RawOrigin::start(|mut stream| async move {
        let head = RawOrigin::read_head(&mut stream).await.to_lowercase();
        assert!(head.contains("upgrade: websocket") && head.contains("connection: upgrade"));
        assert!(head.contains("sec-websocket-key: ") && head.starts_with("get /room "));
        let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\
                      Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
        let _ = stream.write_all(switch.as_bytes()).await;
        let mut buffer = [0; 1024];
        loop {
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(n) => {
                    let upper = buffer[..n].to_ascii_uppercase();
                    let _ = stream.write_all(&upper).await;
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn bytes_are_copied_in_both_directions_after_the_handshake() {
    let gateway = TestGateway::start().await;
    gateway
        .add("chat", "c", upper_case_echo().await.address)
        .await;
    let mut client = RawClient::connect(gateway.address).await;
    client.send(HANDSHAKE).await;
    let switched = client.read_until("\r\n\r\n").await.to_lowercase();
    assert!(switched.starts_with("http/1.1 101"), "{switched}");
    for part in [
        "connection: upgrade",
        "upgrade: websocket",
        "sec-websocket-accept: s3p",
    ] {
        assert!(switched.contains(part), "{part} in {switched}");
    }
    for word in ["hello", "world"] {
        client.send(word).await;
        assert_eq!(
            client.read_until(&word.to_uppercase()).await,
            word.to_uppercase()
        );
    }
    let service = gateway.service("chat").await;
    assert_eq!(service["instances"][0]["in_flight"], 1);
}

#[tokio::test]
async fn a_handshake_is_retried_on_another_instance() {
    let gateway = TestGateway::start().await;
    gateway.add("chat", "dead", unused_address()).await;
    gateway
        .add("chat", "live", upper_case_echo().await.address)
        .await;
    for _ in 0..4 {
        let mut client = RawClient::connect(gateway.address).await;
        client.send(HANDSHAKE).await;
        assert!(
            client
                .read_until("\r\n\r\n")
                .await
                .contains("x-waypost-instance: live")
        );
    }
}

#[tokio::test]
async fn a_service_may_decline_the_upgrade() {
    let gateway = TestGateway::start().await;
    gateway
        .add("chat", "c", Origin::text("not upgraded").await.address)
        .await;
    let mut client = RawClient::connect(gateway.address).await;
    client.send(HANDSHAKE).await;
    assert!(
        client
            .read_until("not upgraded")
            .await
            .starts_with("HTTP/1.1 200")
    );
    // The connection stays usable for further requests.
    client.send("GET /chat/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.read_until("not upgraded").await;
}

#[tokio::test]
async fn an_upgrade_to_h2c_is_ignored() {
    let gateway = TestGateway::start().await;
    gateway.add("auth", "a", Origin::echo().await.address).await;
    let mut client = RawClient::connect(gateway.address).await;
    client
        .send(
            "GET /auth/ HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n\
             Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
        )
        .await;
    let response = client.read_until("}").await;
    assert!(response.starts_with("HTTP/1.1 200"), "{response}");
    assert!(
        !response.contains("h2c") && !response.contains("http2-settings"),
        "{response}"
    );
}

#[tokio::test]
async fn a_tunnel_is_closed_after_the_drain_timeout() {
    let mut gateway =
        TestGateway::start_with(|config| config.drain_timeout = Duration::from_millis(100)).await;
    gateway
        .add("chat", "c", upper_case_echo().await.address)
        .await;
    let mut client = RawClient::connect(gateway.address).await;
    client.send(HANDSHAKE).await;
    client.read_until("\r\n\r\n").await;
    gateway.begin_shutdown();
    gateway.stopped().await;
    assert_eq!(client.read_to_end().await, "");
}
