//! What of a message is changed on its way, and what is not.

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;

use crate::support::{Origin, RawClient, RawOrigin, TestGateway, body};

#[tokio::test]
async fn hop_by_hop_headers_end_at_the_gateway_on_the_way_in() {
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
    let answer = client.read_to_end().await;
    for gone in [
        "x-mine",
        "keep-alive",
        "proxy-authorization",
        "\"proxy\"",
        "\"te\"",
        "\"connection\"",
    ] {
        assert!(!answer.contains(gone), "{gone} in {answer}");
    }
    assert!(answer.contains(r#""x-kept":"1""#) && answer.contains(r#""host":"shop.example""#));
}

#[tokio::test]
async fn hop_by_hop_headers_end_at_the_gateway_on_the_way_out() {
    let gateway = TestGateway::start().await;
    let origin = RawOrigin::writes(
        "HTTP/1.1 200 OK\r\nConnection: close, X-Theirs\r\nX-Theirs: 1\r\nKeep-Alive: max=1\r\n\
         Upgrade: h2c\r\nX-Kept: 1\r\nContent-Length: 2\r\n\r\nok",
    )
    .await;
    gateway.add("auth", "a", origin.address).await;
    let answer = gateway.get("/auth/").await;
    for gone in ["connection", "x-theirs", "keep-alive", "upgrade"] {
        assert!(!answer.headers.contains_key(gone), "{gone} in {answer:?}");
    }
    assert_eq!((answer.header("x-kept"), answer.text()), ("1", "ok"));
    assert!(answer.header("via").starts_with("1.1 waypost-"));
}

#[tokio::test]
async fn a_stranger_cannot_say_where_it_comes_from() {
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
async fn a_trusted_proxy_can() {
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
async fn a_request_has_one_id_from_end_to_end() {
    let gateway = TestGateway::start().await;
    gateway.add("auth", "a", Origin::echo().await.address).await;
    let answer = gateway.get("/auth/").await;
    assert_eq!(
        answer.json()["headers"]["x-request-id"],
        answer.header("x-request-id")
    );
    let brought = Request::get(gateway.url("/auth/")).header("x-request-id", "mine-1");
    let answer = gateway.send(brought).await;
    assert_eq!(answer.json()["headers"]["x-request-id"], "mine-1");
    assert_eq!(answer.header("x-request-id"), "mine-1");
    let refused = gateway.get("/nobody/").await;
    assert_eq!(refused.header("x-request-id").len(), 32);
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let gateway = TestGateway::start().await;
    gateway.add("echo", "e", Origin::echo().await.address).await;
    let origin = RawOrigin::writes(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
         2\r\nok\r\n0\r\nX-Sum: 42\r\n\r\n",
    )
    .await;
    gateway.add("sum", "s", origin.address).await;

    let mut client = RawClient::connect(gateway.address).await;
    client
        .send(
            "POST /echo/ HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n\
             2\r\nhi\r\n0\r\nX-Sum: 7\r\n\r\n",
        )
        .await;
    let answer = client.read_until("}").await;
    assert!(answer.contains(r#""x-sum":"7""#), "{answer}");

    client
        .send("GET /sum/ HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: te\r\n\r\n")
        .await;
    let answer = client.read_until("x-sum: 42\r\n\r\n").await;
    assert!(answer.contains("ok"), "{answer}");
}

#[tokio::test]
async fn answers_without_a_body_keep_their_meaning() {
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
        let answer = gateway.get(&format!("/auth/?{status}")).await;
        assert_eq!((answer.status.as_u16(), answer.body.len()), (status, 0));
        assert_eq!(answer.header("etag"), "\"1\"");
    }
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_to_go_on_only_when_there_is_somebody_to_read() {
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
    client.send(head("nobody")).await;
    assert!(client.read_until("}").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn an_old_client_is_served_too() {
    let gateway = TestGateway::start().await;
    gateway.add("auth", "a", Origin::echo().await.address).await;
    let mut client = RawClient::connect(gateway.address).await;
    client.send("GET /auth/x HTTP/1.0\r\n\r\n").await;
    let answer = client.read_to_end().await;
    assert!(answer.contains(r#""uri":"/x""#), "{answer}");
}
