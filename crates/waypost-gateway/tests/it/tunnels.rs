//! Upgraded connections, such as WebSockets.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Origin, RawClient, RawOrigin, TestGateway, nobody};

const HANDSHAKE: &str = "GET /chat/room HTTP/1.1\r\nHost: a\r\nConnection: keep-alive, Upgrade\r\n\
                         Upgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Switches protocols, then sends back all it gets, in capitals.
async fn shouts() -> RawOrigin {
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
                    let shouted = buffer[..n].to_ascii_uppercase();
                    let _ = stream.write_all(&shouted).await;
                }
            }
        }
    })
    .await
}

#[tokio::test]
async fn after_the_handshake_bytes_pass_both_ways() {
    let gateway = TestGateway::start().await;
    gateway.add("chat", "c", shouts().await.address).await;
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
async fn a_handshake_goes_to_another_instance_when_the_first_is_dead() {
    let gateway = TestGateway::start().await;
    gateway.add("chat", "dead", nobody()).await;
    gateway.add("chat", "live", shouts().await.address).await;
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
async fn a_service_may_refuse_to_switch() {
    let gateway = TestGateway::start().await;
    gateway
        .add("chat", "c", Origin::says("no chat here").await.address)
        .await;
    let mut client = RawClient::connect(gateway.address).await;
    client.send(HANDSHAKE).await;
    assert!(
        client
            .read_until("no chat here")
            .await
            .starts_with("HTTP/1.1 200")
    );
    // And the connection is an ordinary one.
    client.send("GET /chat/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
    client.read_until("no chat here").await;
}

#[tokio::test]
async fn nobody_gets_past_the_gateway_by_switching_to_http_2() {
    let gateway = TestGateway::start().await;
    gateway.add("auth", "a", Origin::echo().await.address).await;
    let mut client = RawClient::connect(gateway.address).await;
    client
        .send(
            "GET /auth/ HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n\
             Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
        )
        .await;
    let answer = client.read_until("}").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(
        !answer.contains("h2c") && !answer.contains("http2-settings"),
        "{answer}"
    );
}

#[tokio::test]
async fn a_tunnel_is_ended_when_the_gateway_has_waited_long_enough() {
    let mut gateway =
        TestGateway::start_with(|config| config.drain_timeout = Duration::from_millis(100)).await;
    gateway.add("chat", "c", shouts().await.address).await;
    let mut client = RawClient::connect(gateway.address).await;
    client.send(HANDSHAKE).await;
    client.read_until("\r\n\r\n").await;
    gateway.tell_to_stop();
    gateway.stopped().await;
    assert_eq!(client.read_to_end().await, "");
}
