//! Upgraded connections, such as WebSockets.

use std::net::SocketAddr;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::ext::Protocol;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use waypost_testkit::browser::Page;

use crate::support::{
    Body, Origin, RawClient, RawOrigin, TestGateway, body, unused_address, with_deadline,
};

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
async fn a_tunnel_in_which_neither_side_sends_anything_ends_after_the_idle_timeout() {
    let gateway =
        TestGateway::start_with(|config| config.idle_timeout = Duration::from_millis(500)).await;
    gateway
        .add("chat", "c", upper_case_echo().await.address)
        .await;
    let mut client = RawClient::connect(gateway.address).await;
    client.send(HANDSHAKE).await;
    client.read_until("\r\n\r\n").await;
    with_deadline("the end of the tunnel", client.read_to_end()).await;
    with_deadline("the end of the lease", async {
        while gateway.service("chat").await["instances"][0]["in_flight"] != 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}

/// A page that opens a WebSocket beside itself, sends a word and shows what comes back.
const PAGE: &str = "<!doctype html><title>chat</title><link rel=icon href='data:,'><p id=said></p><script>\
    const socket = new WebSocket(`ws://${location.host}/chat/socket`, 'shout');\
    socket.onopen = () => socket.send('hello');\
    socket.onmessage = ({data}) => {\
        document.querySelector('#said').textContent += `${data} (${socket.protocol}) `;\
        if (data === 'HELLO') socket.send('wörld'); else socket.close(1000);\
    };\
    socket.onclose = ({code, wasClean}) => {\
        document.querySelector('#said').textContent += `closed ${code} ${wasClean}`;\
    };</script>";

/// Serves the page, and a WebSocket that answers in capitals (RFC 6455).
async fn chat(mut stream: TcpStream) {
    let head = RawOrigin::read_head(&mut stream).await;
    let key = head.lines().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        let is_key = name.eq_ignore_ascii_case("sec-websocket-key");
        is_key.then(|| format!("{value}258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
    });
    let Some(key) = key else {
        let length = PAGE.len();
        let page = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {length}\r\n\
             Connection: close\r\n\r\n{PAGE}"
        );
        let _ = stream.write_all(page.as_bytes()).await;
        return;
    };
    let hash = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, key.as_bytes());
    let accept = data_encoding::BASE64.encode(hash.as_ref());
    let switch = format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: shout\r\n\r\n"
    );
    stream.write_all(switch.as_bytes()).await.expect("a client");
    loop {
        // Frames of a browser are masked. These are short.
        let mut start = [0; 6];
        if stream.read_exact(&mut start).await.is_err() {
            return;
        }
        let [kind, length, mask @ ..] = start;
        let mut payload = vec![0; usize::from(length & 0x7f)];
        stream.read_exact(&mut payload).await.expect("a payload");
        for (byte, mask) in payload.iter_mut().zip(mask.iter().cycle()) {
            *byte ^= mask;
        }
        if kind & 0x0f == 1 {
            let text = String::from_utf8(payload).expect("text");
            payload = text.to_uppercase().into_bytes();
        }
        let head = [kind, payload.len() as u8];
        let _ = stream.write_all(&[&head, &*payload].concat()).await;
    }
}

#[tokio::test]
async fn a_browser_opens_a_web_socket() {
    let gateway = TestGateway::start().await;
    let origin = RawOrigin::start(chat).await;
    gateway.add("chat", "c", origin.address).await;
    Page::test(&gateway.url("/chat/"), async |page| {
        page.wait_for("#said", "HELLO (shout) WÖRLD (shout) closed 1000 true")
            .await;
    })
    .await;
}

#[tokio::test]
async fn a_websocket_over_http2_reaches_an_instance_with_http1() {
    let gateway = TestGateway::start().await;
    gateway
        .add("chat", "c", upper_case_echo().await.address)
        .await;
    let mut client = http2_client(gateway.address).await;
    let response = open_websocket(&mut client, "/chat/room").await;
    assert_eq!(response.status(), StatusCode::OK);
    for name in ["upgrade", "connection", "sec-websocket-accept"] {
        assert!(!response.headers().contains_key(name), "{response:?}");
    }
    let upgraded = hyper::upgrade::on(response).await.expect("a stream");
    let mut stream = TokioIo::new(upgraded);
    for word in ["hello", "world"] {
        stream.write_all(word.as_bytes()).await.expect("written");
        let mut echoed = [0; 5];
        let read = with_deadline("the echo", stream.read_exact(&mut echoed));
        read.await.expect("the echo");
        assert_eq!(echoed, word.to_uppercase().as_bytes());
    }
    // Other requests use the same connection, and the end is passed on.
    let health = Request::get("http://gw.test/livez")
        .body(body(""))
        .expect("a request");
    let health = client.send_request(health).await.expect("a response");
    assert_eq!(health.status(), StatusCode::OK);
    stream.shutdown().await.expect("the end");
    let mut rest = Vec::new();
    let end = with_deadline("the end", stream.read_to_end(&mut rest));
    end.await.expect("the end");
    assert!(rest.is_empty());
}

#[tokio::test]
async fn an_instance_that_does_not_open_the_websocket_is_an_error_over_http2() {
    let gateway = TestGateway::start().await;
    gateway.add("web", "w", Origin::echo().await.address).await;
    let refusing = RawOrigin::writes("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await;
    gateway.add("shut", "s", refusing.address).await;
    let mut client = http2_client(gateway.address).await;
    let response = open_websocket(&mut client, "/web/room").await;
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    let response = open_websocket(&mut client, "/shut/room").await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    let response = open_websocket(&mut client, "/unknown/room").await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
}

/// A client whose server has said that it supports the extended CONNECT.
async fn http2_client(address: SocketAddr) -> SendRequest<Body> {
    let stream = TcpStream::connect(address).await.expect("a connection");
    let handshake =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (mut client, connection) = handshake.await.expect("HTTP/2");
    tokio::spawn(connection);
    // The settings arrive before the first response.
    let first = Request::get("http://gw.test/livez")
        .body(body(""))
        .expect("a request");
    client.send_request(first).await.expect("a response");
    client
}

async fn open_websocket(client: &mut SendRequest<Body>, path: &str) -> Response<Incoming> {
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri(format!("http://gw.test{path}"))
        .header("sec-websocket-version", "13")
        .extension(Protocol::from_static("websocket"))
        .body(body(""))
        .expect("a request");
    let response = with_deadline("the response", client.send_request(request));
    response.await.expect("a response")
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
