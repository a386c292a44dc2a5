//! Upstream models, with a fake OpenAI-compatible server.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::HeaderMap;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use waypost_ai_models::Upstream;

use crate::support::{Events, Server, TIMEOUT};

/// Controls the responses of the fake server, and records its requests.
#[derive(Clone, Default)]
struct FakeUpstream {
    /// Replaces the next response.
    next_response: Arc<Mutex<Option<(u16, &'static str)>>>,
    /// The lines of the next streamed response.
    lines: Arc<Mutex<Option<mpsc::Receiver<String>>>>,
    last_request: Arc<Mutex<Option<(HeaderMap, Value)>>>,
}

impl FakeUpstream {
    fn router(&self) -> Router {
        Router::new()
            .route("/v1/models", get(async || Json(json!({"object": "list", "data": [{"id": "tiny-llm"}, {"id": "org/big:70b"}, {"id": "language"}]}))))
            .route("/v1/chat/completions", post(complete))
            .with_state(self.clone())
    }

    fn respond_next(&self, status: u16, body: &'static str) {
        *self.next_response.lock().unwrap() = Some((status, body));
    }

    /// The next streamed response consists of the lines sent to the returned channel.
    fn stream_next(&self) -> mpsc::Sender<String> {
        let (sender, receiver) = mpsc::channel(1);
        *self.lines.lock().unwrap() = Some(receiver);
        sender
    }

    fn last_request(&self) -> (HeaderMap, Value) {
        self.last_request
            .lock()
            .unwrap()
            .take()
            .expect("the upstream should have received a request")
    }
}

async fn complete(
    State(fake): State<FakeUpstream>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    let streaming = body["stream"] == true;
    *fake.last_request.lock().unwrap() = Some((headers, body));
    if let Some((status, body)) = fake.next_response.lock().unwrap().take() {
        return (http::StatusCode::from_u16(status).unwrap(), body).into_response();
    }
    if !streaming {
        return Json(json!({"choices": [{"message": {"role": "assistant", "content": "A phone book for services."}}]})).into_response();
    }
    let lines = fake
        .lines
        .lock()
        .unwrap()
        .take()
        .expect("the test should have prepared a stream");
    let lines = futures_util::stream::unfold(lines, |mut lines| async move {
        let line = lines.recv().await?;
        Some((Ok::<_, Infallible>(Bytes::from(line)), lines))
    });
    (
        [("content-type", "text/event-stream")],
        Body::from_stream(lines),
    )
        .into_response()
}

fn token(text: &str) -> String {
    format!(
        "data: {}\n\n",
        json!({"choices": [{"delta": {"content": text}}]})
    )
}

fn upstream_at(server: &Server) -> Upstream {
    Upstream::new(&server.url("/v1"), Some("k3y")).unwrap()
}

/// The service, its upstream server, and the control of the latter.
async fn servers() -> (Server, Server, FakeUpstream) {
    let fake = FakeUpstream::default();
    let upstream = Server::of(fake.router()).await;
    let models = Server::of_models(Some(upstream_at(&upstream))).await;
    (models, upstream, fake)
}

/// Expires the cached list of models.
async fn expire_listing() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(6)).await;
    tokio::time::resume();
}

fn model<'a>(list: &'a Value, id: &str) -> &'a Value {
    list["models"]
        .as_array()
        .unwrap()
        .iter()
        .find(|model| model["id"] == id)
        .unwrap_or_else(|| panic!("{id} in {list}"))
}

#[tokio::test]
async fn upstream_models_are_listed_with_the_local_ones() {
    let (models, upstream, _) = servers().await;
    let list = models.get_json("/api/models").await;
    assert_eq!(
        list["upstream"],
        json!({"url": upstream.url("/v1"), "status": "available"})
    );
    for id in ["tiny-llm", "org/big:70b"] {
        assert_eq!(model(&list, id)["provider"], "upstream");
        assert_eq!(model(&list, id)["streams"], "tokens");
        assert_eq!(
            models.get_json(&format!("/api/models/{id}")).await["id"],
            id
        );
    }
    let local: Vec<_> = list["models"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|model| model["id"] == "language")
        .collect();
    assert_eq!(
        local.len(),
        1,
        "a local model hides an upstream one with the same ID"
    );
    assert_eq!(local[0]["provider"], "local");
}

#[tokio::test]
async fn inference_is_forwarded_with_its_parameters_and_the_key() {
    let (models, _upstream, fake) = servers().await;
    let request = json!({"model": "tiny-llm", "input": "What is a registry?", "parameters": {"temperature": 0.5}});
    let response = models.infer(request).await;
    assert_eq!(
        response["output"],
        json!({"text": "A phone book for services."})
    );
    assert_eq!(response["task"], "text-generation");
    assert_eq!(response["served_by"], "ai-models-7");
    let (headers, body) = fake.last_request();
    assert_eq!(headers["authorization"], "Bearer k3y");
    assert_eq!(
        body,
        json!({"model": "tiny-llm", "messages": [{"role": "user", "content": "What is a registry?"}], "stream": false, "temperature": 0.5})
    );

    let response = models
        .post(
            "/api/inference",
            json!({"model": "tiny-llm", "input": "x", "parameters": {"stream": true}}),
        )
        .await;
    assert_eq!(
        response.status(),
        422,
        "the client can't set what this service sets"
    );
}

#[tokio::test]
async fn tokens_are_forwarded_without_buffering() {
    let (models, _upstream, fake) = servers().await;
    let lines = fake.stream_next();
    let response = models
        .post(
            "/api/inference/stream",
            json!({"model": "tiny-llm", "input": "Hi"}),
        )
        .await;
    let mut events = Events::of(response);
    assert_eq!(events.next().await.unwrap().0, "start");
    // Each token arrives before the upstream has written the next one.
    for text in ["A", " phone", " book"] {
        lines.send(token(text)).await.unwrap();
        assert_eq!(
            events.next().await.unwrap(),
            ("token".to_owned(), json!({"text": text}))
        );
    }
    lines.send("data: [DONE]\n\n".to_owned()).await.unwrap();
    let (name, done) = events.next().await.unwrap();
    assert_eq!(
        (name.as_str(), &done["output"]),
        ("done", &json!({"text": "A phone book"}))
    );
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn a_closed_connection_cancels_the_upstream_request() {
    let (models, _upstream, fake) = servers().await;
    let lines = fake.stream_next();
    let response = models
        .post(
            "/api/inference/stream",
            json!({"model": "tiny-llm", "input": "Hi"}),
        )
        .await;
    let mut events = Events::of(response);
    lines.send(token("A")).await.unwrap();
    events.next().await.unwrap();
    drop(events);
    tokio::time::timeout(TIMEOUT, lines.closed())
        .await
        .expect("the request to the upstream should be cancelled");
}

#[tokio::test]
async fn an_interrupted_stream_ends_with_an_error() {
    let cases = [
        (": the end\n\n", "interrupted"),
        (
            "data: {\"error\": {\"message\": \"out of memory\"}}\n\n",
            "out of memory",
        ),
        ("data: {not json\n\n", "is not valid"),
    ];
    for (last, wanted) in cases {
        let (models, _upstream, fake) = servers().await;
        let lines = fake.stream_next();
        let response = models
            .post(
                "/api/inference/stream",
                json!({"model": "tiny-llm", "input": "Hi"}),
            )
            .await;
        lines.send(token("A")).await.unwrap();
        lines.send(last.to_owned()).await.unwrap();
        drop(lines);
        let events = Events::of(response).rest().await;
        let (name, problem) = events.last().unwrap();
        assert_eq!(name, "error");
        assert!(
            problem["detail"].as_str().unwrap().contains(wanted),
            "{problem}"
        );
    }
}

#[tokio::test]
async fn while_the_upstream_is_down_only_its_models_are_unavailable() {
    let (models, upstream, fake) = servers().await;
    models.get_json("/api/models").await;
    let address = upstream.address.to_string();
    upstream.stop();
    expire_listing().await;

    let list = models.get_json("/api/models").await;
    assert_eq!(list["upstream"]["status"], "unavailable");
    let llm = model(&list, "tiny-llm");
    assert_eq!(llm["status"], "unavailable");
    assert!(llm["reason"].as_str().unwrap().contains("refused"), "{llm}");
    assert_eq!(model(&list, "sentiment")["status"], "available");
    models
        .infer(json!({"model": "sentiment", "input": "Still here!"}))
        .await;
    for path in ["/api/inference", "/api/inference/stream"] {
        let response = models
            .post(path, json!({"model": "tiny-llm", "input": "Hi"}))
            .await;
        assert_eq!(response.status(), 503);
        assert!(response.headers().contains_key("retry-after"));
        let problem: Value = response.json().await.unwrap();
        assert!(
            problem["detail"].as_str().unwrap().contains(&address),
            "{problem}"
        );
    }

    drop(upstream);
    let _back = Server::at(&address, fake.router()).await;
    expire_listing().await;
    let list = models.get_json("/api/models").await;
    assert_eq!(model(&list, "tiny-llm")["status"], "available");
}

#[tokio::test]
async fn an_upstream_that_never_responded_is_listed_with_the_reason() {
    let stopped_server = Server::of(Router::new()).await;
    let upstream = upstream_at(&stopped_server);
    drop(stopped_server);
    let models = Server::of_models(Some(upstream)).await;
    let list = models.get_json("/api/models").await;
    assert_eq!(list["upstream"]["status"], "unavailable");
    assert!(
        list["upstream"]["reason"]
            .as_str()
            .unwrap()
            .contains("can't be reached"),
        "{list}"
    );
    // Its models are not known, so an unknown ID may be one of them.
    let response = models
        .post(
            "/api/inference",
            json!({"model": "tiny-llm", "input": "Hi"}),
        )
        .await;
    assert_eq!(response.status(), 503);
}

#[tokio::test]
async fn upstream_errors_are_mapped_to_status_codes() {
    let (models, _upstream, fake) = servers().await;
    let cases = [
        (
            401,
            r#"{"error": {"message": "bad key"}}"#,
            502,
            "AI_MODELS_UPSTREAM_KEY",
        ),
        (
            400,
            r#"{"error": {"message": "temperature too high"}}"#,
            422,
            "temperature too high",
        ),
        (429, r#"{"error": "slow down"}"#, 503, "slow down"),
        (500, "<h1>oops</h1>", 502, "oops"),
        (200, "<h1>hello</h1>", 502, "is not valid"),
        (200, r#"{"choices": []}"#, 502, "no choices"),
    ];
    for (upstream_status, body, status, wanted) in cases {
        fake.respond_next(upstream_status, body);
        let response = models
            .post(
                "/api/inference",
                json!({"model": "tiny-llm", "input": "Hi"}),
            )
            .await;
        assert_eq!(response.status(), status, "{body}");
        let problem: Value = response.json().await.unwrap();
        assert!(
            problem["detail"].as_str().unwrap().contains(wanted),
            "{problem}"
        );
    }
}
