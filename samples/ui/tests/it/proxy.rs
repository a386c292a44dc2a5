//! The proxy for the API of the models, and the files of the page.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::any;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use waypost::Health;

use crate::support::{FlakyRegistry, Server, Stack, TIMEOUT, ui, unused_address};

fn client() -> reqwest::Client {
    reqwest::Client::builder()
        .no_proxy()
        .timeout(TIMEOUT)
        .build()
        .unwrap()
}

#[tokio::test]
async fn the_models_are_called_through_the_gateway() {
    let stack = Stack::of(2).await;
    let models: Value = client()
        .get(stack.ui.url("/api/models"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert!(models["models"].as_array().unwrap().len() >= 3);

    let mut instances = Vec::new();
    for _ in 0..4 {
        let request = client().post(stack.ui.url("/api/inference"));
        let body = json!({"model": "sentiment", "input": "Lovely!"}).to_string();
        let response = request.body(body).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(
            response.headers()["x-gateway"]
                .to_str()
                .unwrap()
                .starts_with("127.0.0.1:")
        );
        let served_by = response.headers()["x-served-by"]
            .to_str()
            .unwrap()
            .to_owned();
        let answer: Value = response.json().await.unwrap();
        assert_eq!(answer["served_by"], served_by);
        assert_eq!(answer["output"]["label"], "positive");
        instances.push(served_by);
    }
    instances.sort();
    assert_eq!(
        instances,
        ["ai-models-1", "ai-models-1", "ai-models-2", "ai-models-2"]
    );
}

#[tokio::test]
async fn errors_of_the_models_are_forwarded_unchanged() {
    let stack = Stack::of(1).await;
    let request = client().post(stack.ui.url("/api/inference")).body("{");
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 400);
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
    assert_eq!(response.json::<Value>().await.unwrap()["line"], 1);
}

#[tokio::test]
async fn only_the_api_of_the_models_is_reachable() {
    let stack = Stack::of(1).await;
    for path in [
        "/api/../internal/routes",
        "/api/../../internal/routes",
        "/api/%2e%2e/%2e%2e/internal/routes",
        "/api/x/%2E%2E/../../../internal/routes",
    ] {
        // Sent over a socket, since an HTTP client would resolve the dot segments.
        let response = get_raw(stack.ui.address, path).await;
        assert!(response.starts_with("HTTP/1.1 404"), "{path}: {response}");
        assert!(!response.contains("secret"), "{path}: {response}");
    }
}

#[tokio::test]
async fn a_request_is_retried_when_a_gateway_is_unreachable() {
    let stack = Stack::of(1).await;
    let dead = unused_address();
    stack
        .registry
        .add("api-gateway", "gateway-0", dead, Health::Passing);
    for _ in 0..6 {
        let response = client()
            .get(stack.ui.url("/api/models"))
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 200);
    }
}

#[tokio::test]
async fn without_a_gateway_the_error_gives_the_reason() {
    let registry = FlakyRegistry::default();
    let ui = Server::of(ui(&registry)).await;
    let response = client().get(ui.url("/api/models")).send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
    let problem: Value = response.json().await.unwrap();
    assert!(
        problem["detail"].as_str().unwrap().contains("gateway"),
        "{problem}"
    );

    let dead = unused_address();
    registry.add("api-gateway", "gateway-0", dead, Health::Passing);
    let response = client().get(ui.url("/api/models")).send().await.unwrap();
    assert_eq!(response.status(), 502);
    let problem: Value = response.json().await.unwrap();
    assert!(
        problem["detail"]
            .as_str()
            .unwrap()
            .contains(&dead.to_string()),
        "{problem}"
    );
}

#[tokio::test]
async fn a_streamed_response_is_forwarded_without_buffering() {
    let (chunks, receiver) = mpsc::channel::<Bytes>(1);
    let receiver = std::sync::Arc::new(std::sync::Mutex::new(Some(receiver)));
    let slow = async move || {
        let receiver = receiver.lock().unwrap().take().unwrap();
        Body::from_stream(futures_util::stream::unfold(
            receiver,
            |mut receiver| async move { Some((Ok::<_, Infallible>(receiver.recv().await?), receiver)) },
        ))
    };
    let gateway =
        Server::of(Router::new().route("/ai-models/api/inference/stream", any(slow))).await;
    let registry = FlakyRegistry::default();
    registry.add("api-gateway", "gateway-1", gateway.address, Health::Passing);
    let ui = Server::of(ui(&registry)).await;

    let response = client()
        .post(ui.url("/api/inference/stream"))
        .send()
        .await
        .unwrap();
    let mut body = response.bytes_stream();
    for chunk in ["one", "two"] {
        chunks.send(Bytes::from(chunk)).await.unwrap();
        let received = tokio::time::timeout(TIMEOUT, body.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(received, chunk);
    }
    drop(body);
    tokio::time::timeout(TIMEOUT, chunks.closed())
        .await
        .expect("the request to the gateway should be cancelled");
}

#[tokio::test]
async fn the_page_may_load_resources_of_this_service_only() {
    let stack = Stack::of(1).await;
    for path in ["/", "/app.js", "/style.css", "/icon.svg"] {
        let response = client().get(stack.ui.url(path)).send().await.unwrap();
        assert_eq!(response.status(), 200, "{path}");
        let policy = response.headers()["content-security-policy"]
            .to_str()
            .unwrap();
        assert!(
            policy.starts_with("default-src 'none'; script-src 'self'"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    }
    let response = client().get(stack.ui.url("/nothing")).send().await.unwrap();
    assert_eq!(response.status(), 404);
}

#[tokio::test]
async fn requests_of_web_pages_of_other_sites_are_refused() {
    let stack = Stack::of(1).await;
    let body = json!({"model": "sentiment", "input": "Lovely!"}).to_string();
    let host = stack.ui.address.to_string();
    let own = format!("http://{host}");
    for (headers, status) in [
        (&[][..], 200),
        (&[("origin", own.as_str())], 200),
        (
            &[
                ("sec-fetch-site", "same-origin"),
                ("content-type", "application/json"),
            ],
            200,
        ),
        (&[("content-type", "text/plain")], 415),
        (
            &[("content-type", "application/x-www-form-urlencoded")],
            415,
        ),
        (&[("origin", "https://evil.example")], 403),
        (&[("origin", "http://localhost:1234")], 403),
        (&[("origin", "null")], 403),
        (&[("sec-fetch-site", "cross-site")], 403),
        (
            &[("host", "evil.example"), ("origin", "http://evil.example")],
            403,
        ),
    ] {
        for path in ["/api/inference", "/api/inference/stream"] {
            let request = client().post(stack.ui.url(path)).body(body.clone());
            let request = headers.iter().fold(request, |request, (name, value)| {
                request.header(*name, *value)
            });
            let response = request.send().await.unwrap();
            assert_eq!(response.status(), status, "{path}, {headers:?}");
        }
    }
    let request = client()
        .get(stack.ui.url("/"))
        .header("host", "evil.example");
    assert_eq!(request.send().await.unwrap().status(), 403);
}

/// Sends a GET request with an unmodified path, and returns the whole response.
async fn get_raw(address: SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: ui\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    tokio::time::timeout(TIMEOUT, stream.read_to_string(&mut response))
        .await
        .unwrap()
        .unwrap();
    response
}
