//! The way to the models, and what the service answers besides.

use std::convert::Infallible;
use std::net::SocketAddr;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::routing::any;
use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use waypost::Health;

use crate::support::{Flaky, SOON, Server, Stack, nobody, ui};

fn client() -> reqwest::Client {
    reqwest::Client::builder().timeout(SOON).build().unwrap()
}

#[tokio::test]
async fn the_models_api_is_called_through_the_gateway() {
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

    let mut who = Vec::new();
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
        who.push(served_by);
    }
    who.sort();
    assert_eq!(
        who,
        ["ai-models-1", "ai-models-1", "ai-models-2", "ai-models-2"]
    );
}

#[tokio::test]
async fn errors_of_the_models_arrive_as_they_are() {
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
async fn nothing_but_the_models_api_can_be_reached() {
    let stack = Stack::of(1).await;
    for path in [
        "/api/../internal/routes",
        "/api/../../internal/routes",
        "/api/%2e%2e/%2e%2e/internal/routes",
        "/api/x/%2E%2E/../../../internal/routes",
    ] {
        // Sent as it stands: a client library would resolve the dots before.
        let answer = raw(stack.ui.address, path).await;
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
        assert!(!answer.contains("secret"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_gateway_that_does_not_answer_is_passed_over() {
    let stack = Stack::of(1).await;
    let dead = nobody();
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
async fn without_a_gateway_the_reason_is_told() {
    let registry = Flaky::default();
    let ui = Server::of(ui(&registry)).await;
    let response = client().get(ui.url("/api/models")).send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert!(response.headers().contains_key("retry-after"));
    let problem: Value = response.json().await.unwrap();
    assert!(
        problem["detail"].as_str().unwrap().contains("gateway"),
        "{problem}"
    );

    let dead = nobody();
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
async fn a_streamed_answer_is_passed_on_as_it_comes() {
    let (pieces, receiver) = mpsc::channel::<Bytes>(1);
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
    let registry = Flaky::default();
    registry.add("api-gateway", "gateway-1", gateway.address, Health::Passing);
    let ui = Server::of(ui(&registry)).await;

    let response = client()
        .post(ui.url("/api/inference/stream"))
        .send()
        .await
        .unwrap();
    let mut arriving = response.bytes_stream();
    for piece in ["one", "two"] {
        pieces.send(Bytes::from(piece)).await.unwrap();
        let arrived = tokio::time::timeout(SOON, arriving.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert_eq!(arrived, piece);
    }
    drop(arriving);
    tokio::time::timeout(SOON, pieces.closed())
        .await
        .expect("hanging up should reach the gateway");
}

#[tokio::test]
async fn the_page_may_load_from_here_only() {
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

/// The answer to a request whose path is sent as it stands.
async fn raw(address: SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: ui\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(SOON, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    answer
}
