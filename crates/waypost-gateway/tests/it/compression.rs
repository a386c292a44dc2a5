//! Compressed responses.

use std::io::Read;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use tokio::sync::mpsc;

use crate::support::{FullResponse, Origin, RawClient, Routed, body, streamed};

const ROUTES: &str = "routes: [{match: {path: /shop}, service: shop, compress: {min_size: 100}}]";

/// Responds with 1,000 bytes and the headers that the query lists, as `name=value`.
async fn shop() -> (Routed, Origin) {
    let routed = Routed::start(ROUTES).await;
    let origin = Origin::start(|request| async move {
        let mut response = Response::builder().header("content-type", "text/plain; charset=utf-8");
        let mut size = 1000;
        for pair in request.uri().query().unwrap_or("").split('&') {
            match pair.split_once('=') {
                Some(("size", value)) => size = value.parse().expect("a number"),
                Some(("etag", value)) => response = response.header("etag", format!("\"{value}\"")),
                Some(("status", value)) => response = response.status(value),
                Some(("content-type", value)) => {
                    response
                        .headers_mut()
                        .expect("headers")
                        .insert("content-type", value.parse().expect("a type"));
                }
                Some((name, value)) => response = response.header(name, value),
                None => {}
            }
        }
        response.body(body("x".repeat(size))).expect("a response")
    })
    .await;
    routed.gateway.add("shop", "s", origin.address).await;
    (routed, origin)
}

async fn get(routed: &Routed, query: &str) -> FullResponse {
    let path = format!("/shop?{query}");
    routed
        .get_with(&path, &[("accept-encoding", "br, gzip")])
        .await
}

fn unzip(compressed: &[u8]) -> String {
    let mut text = String::new();
    let mut decoder = flate2::read::GzDecoder::new(compressed);
    decoder.read_to_string(&mut text).expect("gzip");
    text
}

#[tokio::test]
async fn a_response_is_compressed_for_clients_that_accept_it() {
    let (routed, _origin) = shop().await;
    let answer = get(&routed, "etag=a&accept-ranges=bytes&vary=cookie").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("content-encoding"), "gzip");
    assert_eq!(answer.header("etag"), "W/\"a\"");
    assert_eq!(answer.header("vary"), "cookie, accept-encoding");
    assert!(!answer.headers.contains_key("content-length"));
    assert!(!answer.headers.contains_key("accept-ranges"));
    assert!(answer.body.len() < 200, "{}", answer.body.len());
    assert_eq!(unzip(&answer.body), "x".repeat(1000));
    let json = get(&routed, "content-type=application/problem%2Bjson").await;
    assert!(
        !json.headers.contains_key("content-encoding"),
        "not decoded"
    );
    let json = get(&routed, "content-type=application/problem+json").await;
    assert_eq!(json.header("content-encoding"), "gzip");

    let plain = routed.get("/shop?etag=a").await;
    assert_eq!(plain.text(), "x".repeat(1000));
    assert_eq!(plain.header("content-length"), "1000");
    assert_eq!(plain.header("etag"), "\"a\"");
    assert_eq!(plain.header("vary"), "accept-encoding");
}

#[tokio::test]
async fn other_responses_are_left_as_they_are() {
    let (routed, _origin) = shop().await;
    for query in [
        "size=99",
        "content-type=text/event-stream",
        "content-type=application/grpc+proto",
        "content-type=image/png",
        "content-encoding=br",
        "cache-control=max-age=1,no-transform",
        "content-range=bytes%200-999/2000&status=206",
        "status=204&size=0",
        "content-digest=x",
    ] {
        let answer = get(&routed, query).await;
        let coding = answer.headers.get("content-encoding");
        assert!(coding.is_none_or(|coding| coding == "br"), "{query}");
        let size = answer.body.len();
        assert!([0, 99, 1000].contains(&size), "{query}: {size}");
    }
    let head = Request::builder()
        .method(Method::HEAD)
        .uri(routed.gateway.url("/shop"))
        .header("accept-encoding", "gzip");
    let answer = routed.gateway.send(head).await;
    assert_eq!(answer.header("content-length"), "1000");
    assert!(!answer.headers.contains_key("content-encoding"));
    assert_eq!(answer.header("vary"), "accept-encoding");

    let mut old = RawClient::connect(routed.gateway.address).await;
    old.send("GET /shop HTTP/1.0\r\nHost: a\r\nAccept-Encoding: gzip\r\n\r\n")
        .await;
    let answer = old.read_to_end().await;
    assert!(answer.contains("content-length: 1000"), "{answer}");
}

#[tokio::test]
async fn a_stream_arrives_piece_by_piece() {
    let routed = Routed::start(ROUTES).await;
    let (pieces, receiver) = mpsc::unbounded_channel::<Bytes>();
    let receiver = std::sync::Arc::new(std::sync::Mutex::new(Some(receiver)));
    let origin = Origin::start(move |_| {
        let receiver = receiver.lock().expect("no panic").take().expect("one call");
        let pieces = futures_util::stream::unfold(receiver, |mut receiver| async {
            let piece = receiver.recv().await?;
            Some((piece, receiver))
        });
        async move {
            Response::builder()
                .header("content-type", "application/json")
                .body(streamed(pieces))
                .expect("a response")
        }
    })
    .await;
    routed.gateway.add("shop", "s", origin.address).await;
    let request = Request::get(routed.gateway.url("/shop"))
        .header("accept-encoding", "gzip")
        .body(body(""))
        .expect("a request");
    let mut response = routed.gateway.begin(request).await.expect("a response");
    assert_eq!(response.headers()["content-encoding"], "gzip");
    let mut decoder = flate2::write::GzDecoder::new(Vec::new());
    for text in ["{\"a\":", "1", "}"] {
        pieces.send(Bytes::from(text)).expect("a reader");
        crate::support::with_deadline(text, async {
            use http_body_util::BodyExt;
            while !decoder.get_ref().ends_with(text.as_bytes()) {
                let frame = response.frame().await.expect("a frame").expect("no error");
                let data = frame.into_data().expect("data");
                std::io::Write::write_all(&mut decoder, &data).expect("gzip");
                std::io::Write::flush(&mut decoder).expect("gzip");
            }
        })
        .await;
    }
    drop(pieces);
    let whole = FullResponse::read(response).await;
    std::io::Write::write_all(&mut decoder, &whole.body).expect("gzip");
    assert_eq!(decoder.finish().expect("the end"), b"{\"a\":1}");
}
