//! Which headers are removed, added and passed on.

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;

use crate::support::{Origin, RawClient, RawOrigin, TestGateway, body};

#[tokio::test]
async fn hop_by_hop_headers_of_a_request_are_removed() {
    let gateway = TestGateway::start().await;
    gateway.add("auth", "a", Origin::echo().await.address).await;
    let mut client = RawClient::connect(gateway.address).await;
    client
        .send(
            "GET /auth/ HTTP/1.1\r\nHost: shop.example\r\nConnection: close, X-Mine\r\n\
             X-Mine: 1\r\nKeep-Alive: timeout=9\r\nProxy-Authorization: secret\r\nProxy: p\r\n\
             TE: gzip\r\nX-Kept: 1\r\n\r\n",
        )
        .await;
    let response = client.read_to_end().await;
    for gone in [
        "x-mine",
        "keep-alive",
        "proxy-authorization",
        "\"proxy\"",
        "\"te\"",
        "\"connection\"",
    ] {
        assert!(!response.contains(gone), "{gone} in {response}");
    }
    assert!(response.contains(r#""x-kept":"1""#) && response.contains(r#""host":"shop.example""#));
}

#[tokio::test]
async fn hop_by_hop_headers_of_a_response_are_removed() {
    let gateway = TestGateway::start().await;
    let origin = RawOrigin::writes(
        "HTTP/1.1 200 OK\r\nConnection: close, X-Theirs\r\nX-Theirs: 1\r\nKeep-Alive: max=1\r\n\
         Upgrade: h2c\r\nX-Kept: 1\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    gateway.add("auth", "a", origin.address).await;
    let response = gateway.get("/auth/").await;
    for gone in ["connection", "x-theirs", "keep-alive", "upgrade"] {
        assert!(
            !response.headers.contains_key(gone),
            "{gone} in {response:?}"
        );
    }
    assert_eq!((response.header("x-kept"), response.text()), ("1", "ok"));
    assert!(response.header("via").starts_with("1.1 waypost-"));
}

#[tokio::test]
async fn forwarding_headers_of_an_untrusted_client_are_replaced() {
    let gateway = TestGateway::start().await;
    gateway.add("auth", "a", Origin::echo().await.address).await;
    let request = Request::get(gateway.url("/auth/"))
        .header("x-forwarded-for", "6.6.6.6")
        .header("forwarded", "for=6.6.6.6")
        .header("x-real-ip", "6.6.6.6");
    let seen = gateway.send(request).await.json();
    let host = gateway.address.to_string();
    assert_eq!(seen["headers"]["x-forwarded-for"], "127.0.0.1");
    assert_eq!(seen["headers"]["x-forwarded-host"], host);
    assert_eq!(seen["headers"]["x-forwarded-proto"], "http");
    assert_eq!(seen["headers"]["x-forwarded-prefix"], "/auth");
    assert_eq!(
        seen["headers"]["forwarded"],
        format!("for=127.0.0.1;host=\"{host}\";proto=http")
    );
    assert!(seen["headers"]["x-real-ip"].is_null());
    assert!(
        seen["headers"]["via"]
            .as_str()
            .unwrap()
            .starts_with("1.1 waypost-")
    );
}

#[tokio::test]
async fn forwarding_headers_of_a_trusted_proxy_are_extended() {
    let gateway = TestGateway::start_with(|config| {
        config.trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()]
    })
    .await;
    gateway.add("auth", "a", Origin::echo().await.address).await;
    let request = Request::get(gateway.url("/auth/"))
        .header("x-forwarded-for", "192.0.2.9")
        .header("x-forwarded-proto", "https");
    let seen = gateway.send(request).await.json();
    assert_eq!(seen["headers"]["x-forwarded-for"], "192.0.2.9, 127.0.0.1");
    assert_eq!(seen["headers"]["x-forwarded-proto"], "https");
}

#[tokio::test]
async fn the_request_id_is_the_same_for_the_client_and_the_instance() {
    let gateway = TestGateway::start().await;
    gateway.add("auth", "a", Origin::echo().await.address).await;
    let response = gateway.get("/auth/").await;
    assert_eq!(
        response.json()["headers"]["x-request-id"],
        response.header("x-request-id")
    );
    let with_id = Request::get(gateway.url("/auth/")).header("x-request-id", "mine-1");
    let response = gateway.send(with_id).await;
    assert_eq!(response.json()["headers"]["x-request-id"], "mine-1");
    assert_eq!(response.header("x-request-id"), "mine-1");
    let unknown = gateway.get("/unknown/").await;
    assert_eq!(unknown.header("x-request-id").len(), 32);
}

#[tokio::test]
async fn trailers_are_passed_on_in_both_directions() {
    let gateway = TestGateway::start().await;
    gateway.add("echo", "e", Origin::echo().await.address).await;
    let origin = RawOrigin::writes(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
         2\r\nok\r\n0\r\nX-Sum: 42\r\n\r\n",
    )
    .await;
    gateway.add("sum", "s", origin.address).await;

    let mut client = RawClient::connect(gateway.address).await;
    client.send_with_trailer("POST", "/echo/").await;
    let response = client.read_until("}").await;
    assert!(response.contains(r#""x-sum":"7""#), "{response}");

    client
        .send("GET /sum/ HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: te\r\n\r\n")
        .await;
    let response = client.read_until("x-sum: 42\r\n\r\n").await;
    assert!(response.contains("ok"), "{response}");
}

#[tokio::test]
async fn responses_without_a_body_keep_their_status_and_headers() {
    let gateway = TestGateway::start().await;
    let origin = Origin::start(|request: Request<_>| async move {
        let status = request
            .uri()
            .query()
            .unwrap_or("200")
            .parse::<u16>()
            .unwrap();
        let response = Response::builder().status(status).header("etag", "\"1\"");
        match status {
            200 => response.body(body("twelve bytes")).unwrap(),
            _ => response.body(body("")).unwrap(),
        }
    })
    .await;
    gateway.add("auth", "a", origin.address).await;
    let head = Request::builder()
        .method(Method::HEAD)
        .uri(gateway.url("/auth/"));
    let head = gateway.send(head).await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
    assert_eq!(head.header("content-length"), "12");
    for status in [204, 304] {
        let response = gateway.get(&format!("/auth/?{status}")).await;
        assert_eq!((response.status.as_u16(), response.body.len()), (status, 0));
        assert_eq!(response.header("etag"), "\"1\"");
    }
}

#[tokio::test]
async fn a_100_continue_is_sent_only_if_the_request_is_forwarded() {
    let gateway = TestGateway::start().await;
    let origin = Origin::start(|request: Request<hyper::body::Incoming>| async move {
        assert!(!request.headers().contains_key("expect"));
        Response::new(body(
            request.into_body().collect().await.unwrap().to_bytes(),
        ))
    })
    .await;
    gateway.add("auth", "a", origin.address).await;
    let head = |service: &str| {
        format!(
            "POST /{service}/ HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
        )
    };
    let mut client = RawClient::connect(gateway.address).await;
    client.send(head("auth")).await;
    client.read_until("HTTP/1.1 100 Continue\r\n\r\n").await;
    client.send("hello").await;
    client.read_until("hello").await;

    let mut client = RawClient::connect(gateway.address).await;
    client.send(head("unknown")).await;
    assert!(client.read_until("}").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn an_http_1_0_client_is_served() {
    let gateway = TestGateway::start().await;
    gateway.add("auth", "a", Origin::echo().await.address).await;
    let mut client = RawClient::connect(gateway.address).await;
    client.send("GET /auth/x HTTP/1.0\r\n\r\n").await;
    let response = client.read_to_end().await;
    assert!(response.contains(r#""uri":"/x""#), "{response}");
    assert!(response.contains(r#""via":"1.0 waypost-"#), "{response}");
}
