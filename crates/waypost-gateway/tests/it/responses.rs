//! How the gateway changes responses, and which ones it refuses.

use std::sync::Arc;

use http::{Request, StatusCode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;

use crate::support::{RawClient, RawOrigin, TestGateway};

/// A gateway with a service that sends these bytes and closes.
async fn gateway_to(service: &str, response: &'static str) -> TestGateway {
    let gateway = TestGateway::start().await;
    let origin = RawOrigin::writes(response).await;
    gateway.add(service, service, origin.address).await;
    gateway
}

/// Sends a request and reads until the gateway closes.
async fn exchange(gateway: &TestGateway, request: &str) -> String {
    let mut client = RawClient::connect(gateway.address).await;
    client.send(request).await;
    client.read_to_end().await.to_lowercase()
}

#[tokio::test]
async fn a_redirect_to_the_clients_host_gets_the_prefix_whatever_its_scheme_case_and_port() {
    for (location, rewritten) in [
        ("https://gw.test/cart", "https://gw.test/shop/cart"),
        ("http://GW.test:80/cart", "http://gw.test:80/shop/cart"),
        ("//gw.test/cart", "//gw.test/shop/cart"),
        ("/caf\u{e9}", "/shop/caf%c3%a9"),
    ] {
        let response =
            format!("HTTP/1.1 301 Moved\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n");
        let gateway = gateway_to("shop", response.leak()).await;
        let request = "GET /shop/cart HTTP/1.1\r\nHost: gw.test\r\nConnection: close\r\n\r\n";
        let answer = exchange(&gateway, request).await;
        assert!(
            answer.contains(&format!("\r\nlocation: {rewritten}\r\n")),
            "{location}: {answer}"
        );
    }
}

#[tokio::test]
async fn a_cookie_for_a_path_of_the_service_comes_back_below_its_prefix() {
    let response = "HTTP/1.1 200 OK\r\nSet-Cookie: sid=1; Path=/admin\r\nContent-Length: 0\r\n\r\n";
    let gateway = gateway_to("shop", response).await;
    let answer = gateway.get("/shop/login").await;
    assert_eq!(answer.header("set-cookie"), "sid=1; Path=/shop/admin");
}

#[tokio::test]
async fn a_service_whose_paths_begin_with_its_name_is_redirected_to_them() {
    let response = "HTTP/1.1 307 Moved\r\nLocation: /users/\r\nContent-Length: 0\r\n\r\n";
    let gateway = gateway_to("users", response).await;
    let answer = gateway.get("/users/users").await;
    assert_eq!(answer.header("location"), "/users/users/");
}

#[tokio::test]
async fn a_426_keeps_the_protocol_that_the_service_requires() {
    let response = "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                    Content-Length: 0\r\n\r\n";
    let gateway = gateway_to("chat", response).await;
    let answer = gateway.get("/chat/").await;
    assert_eq!(answer.status, StatusCode::UPGRADE_REQUIRED);
    assert_eq!(answer.header("upgrade"), "websocket");
}

#[tokio::test]
async fn an_http_1_0_client_can_tell_where_a_body_of_unknown_length_ends() {
    let response = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n";
    let gateway = gateway_to("shop", response).await;
    let request = "GET /shop/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n";
    let answer = exchange(&gateway, request).await;
    assert!(answer.contains("\r\nconnection: close\r\n"), "{answer}");
    assert!(
        !answer.contains("keep-alive") && answer.ends_with("\r\n\r\nhi"),
        "{answer}"
    );
}

#[tokio::test]
async fn the_version_of_an_instance_is_not_passed_on() {
    let response = "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok";
    let gateway = gateway_to("shop", response).await;
    let mut client = RawClient::connect(gateway.address).await;
    for _ in 0..2 {
        client.send("GET /shop/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let answer = client.read_until("ok").await;
        assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer}");
    }
}

/// Sends half of a body whose end is the end of the connection, and resets once `seen` says so. A reset
/// discards what the gateway hasn't read yet.
async fn resets_halfway(seen: Arc<Notify>) -> RawOrigin {
    RawOrigin::start(move |mut stream| {
        let seen = Arc::clone(&seen);
        async move {
            RawOrigin::read_head(&mut stream).await;
            let _ = stream.write_all(b"HTTP/1.0 200 OK\r\n\r\nhalf").await;
            seen.notified().await;
            let socket = socket2::SockRef::from(&stream);
            let _ = socket.set_linger(Some(std::time::Duration::ZERO));
        }
    })
    .await
}

#[tokio::test]
async fn half_a_body_without_a_length_is_an_error_for_the_client() {
    let gateway = TestGateway::start().await;
    let seen = Arc::new(Notify::new());
    gateway
        .add("shop", "s", resets_halfway(Arc::clone(&seen)).await.address)
        .await;
    let mut client = RawClient::connect(gateway.address).await;
    client
        .send("GET /shop/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    client.read_until("half").await;
    seen.notify_one();
    let rest = client.read_to_end().await;
    assert!(!rest.ends_with("0\r\n\r\n"), "{rest}");

    let mut client = RawClient::connect(gateway.address).await;
    client.send("GET /shop/ HTTP/1.0\r\n\r\n").await;
    client.read_until("half").await;
    seen.notify_one();
    let mut read = Vec::new();
    let end = client.0.read_to_end(&mut read).await;
    let error = end.expect_err("a reset");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn trailers_that_were_not_announced_are_passed_on() {
    let response = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                    2\r\nok\r\n0\r\nDigest: abc\r\nX-Forwarded-For: 1.1.1.1\r\n\r\n";
    let gateway = gateway_to("sum", response).await;
    let request = "GET /sum/ HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: te, close\r\n\r\n";
    let answer = exchange(&gateway, request).await;
    assert!(answer.contains("\r\ndigest: abc\r\n"), "{answer}");
    assert!(!answer.contains("1.1.1.1"), "{answer}");
}

#[tokio::test]
async fn a_response_with_many_header_lines_is_passed_on() {
    let lines: String = (0..150).map(|n| format!("X-{n}: {n}\r\n")).collect();
    let response = format!("HTTP/1.1 200 OK\r\n{lines}Content-Length: 2\r\n\r\nok");
    let gateway = gateway_to("shop", response.leak()).await;
    // Twice: the first response shows how many lines the service sends.
    for _ in 0..2 {
        let request = "GET /shop/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let answer = exchange(&gateway, request).await;
        assert!(answer.starts_with("http/1.1 200"), "{answer}");
        assert!(
            answer.contains("\r\nx-149: 149\r\n") && answer.ends_with("ok"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn the_framing_of_a_response_is_unambiguous() {
    for (headers, body, expected) in [
        (
            "Content-Length: 3\r\nTransfer-Encoding: chunked",
            "5\r\nhello\r\n0\r\n\r\n",
            Some("hello"),
        ),
        ("Content-Length: 5, 5", "hello", Some("hello")),
        (
            "Content-Length: 5\r\nContent-Length: 5",
            "hello",
            Some("hello"),
        ),
        (
            "Transfer-Encoding: gzip, chunked",
            "5\r\nhello\r\n0\r\n\r\n",
            None,
        ),
        (
            "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
            "5\r\nhello\r\n0\r\n\r\n",
            None,
        ),
        ("Content-Length: 5\r\nContent-Length: 6", "hello!", None),
    ] {
        let response = format!("HTTP/1.1 200 OK\r\n{headers}\r\n\r\n{body}");
        let gateway = gateway_to("shop", response.leak()).await;
        let answer = gateway.get("/shop/").await;
        match expected {
            Some(body) => {
                assert_eq!(
                    (answer.status, answer.text()),
                    (StatusCode::OK, body),
                    "{headers}"
                );
                let lengths = answer.headers.get_all("content-length").iter().count();
                let codings = answer.headers.contains_key("transfer-encoding");
                assert!(lengths <= 1 && (lengths == 1) != codings, "{answer:?}");
            }
            None => assert_eq!(answer.reason(), "bad_response", "{headers}"),
        }
    }
}

#[tokio::test]
async fn a_browser_gets_a_page_for_an_error() {
    let gateway = TestGateway::start().await;
    gateway
        .add("orders", "o", crate::support::unused_address())
        .await;
    let request = Request::get(gateway.url("/oders/")).header("accept", "text/html,*/*");
    let answer = gateway.send(request).await;
    assert_eq!(answer.status, StatusCode::NOT_FOUND);
    assert_eq!(answer.header("content-type"), "text/html; charset=utf-8");
    for part in ["unknown_service", "<a href=\"/orders/\">orders</a>"] {
        assert!(answer.text().contains(part), "{part} in {answer:?}");
    }
}

#[tokio::test]
async fn options_of_the_gateway_as_a_whole_are_answered_by_itself() {
    let gateway = TestGateway::start().await;
    let mut client = RawClient::connect(gateway.address).await;
    client
        .send("OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        .await;
    let response = client.read_to_end().await;
    assert!(response.starts_with("HTTP/1.1 204 "), "{response}");
}
