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

fn finish(reason: &str) -> String {
    format!(
        "data: {}\n\n",
        json!({"choices": [{"delta": {}, "finish_reason": reason}]})
    )
}

fn upstream_at(server: &Server) -> Upstream {
    Upstream::new(&server.url("/v1"), Some("k3y")).unwrap()
}

/// The service, its upstream server, and the handle that controls the upstream server.
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
    lines.send(finish("stop")).await.unwrap();
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

/// The last event of a stream whose upstream response has this body.
async fn last_event_of(content_type: &'static str, body: &str) -> (String, Value) {
    let body = body.to_owned();
    let complete = async move || ([("content-type", content_type)], body.clone());
    let (models, _upstream) = models_with(post(complete)).await;
    let request = json!({"model": "tiny-llm", "input": "Hi"});
    let response = models.post("/api/inference/stream", &request).await;
    if response.status() != 200 {
        return ("error".to_owned(), response.json().await.unwrap());
    }
    Events::of(response).rest().await.pop().unwrap()
}

/// The service, and an upstream server with this handler of completions.
async fn models_with(complete: axum::routing::MethodRouter) -> (Server, Server) {
    let router = Router::new()
        .route(
            "/v1/models",
            get(async || Json(json!({"data": [{"id": "tiny-llm"}]}))),
        )
        .route("/v1/chat/completions", complete);
    let upstream = Server::of(router).await;
    let models = Server::of_models(Some(upstream_at(&upstream))).await;
    (models, upstream)
}

#[tokio::test]
async fn a_failure_in_a_stream_is_an_error_in_any_form_that_servers_use() {
    const SSE: &str = "text/event-stream";
    const DONE: &str = "data: [DONE]\n\n";
    let message = "the prompt is longer than the context";
    let error = json!({"code": 400, "message": message});
    for (content_type, failure) in [
        (SSE, format!("error: {error}\n\n")),
        (SSE, format!("error:{{\"error\": {error}}}\r\n\r\n")),
        (SSE, format!("error: {message}\n\n")),
        (SSE, format!("data: {}\n\n", json!({"error": error}))),
        (SSE, format!("data: {}\n\n", json!({"error": message}))),
        (SSE, format!("data: {error}\n\n")),
        (
            SSE,
            format!(
                "data: {}\n\n",
                json!({"object": "error", "message": message})
            ),
        ),
        (SSE, format!("data: {}\n\n", json!({"detail": message}))),
        (SSE, format!("event: error\ndata: {error}\n\n")),
        (SSE, format!("event: error\ndata: {message}\n\n")),
        (
            SSE,
            format!(
                "data: {}\n\n",
                json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "error", "error": error}]})
            ),
        ),
        ("application/json", json!({"error": error}).to_string()),
        ("application/json; charset=utf-8", error.to_string()),
    ] {
        for before in [String::new(), token("A")] {
            if content_type != SSE && !before.is_empty() {
                continue;
            }
            let end = if content_type == SSE { DONE } else { "" };
            let (name, problem) =
                last_event_of(content_type, &format!("{before}{failure}{end}")).await;
            assert_eq!(name, "error", "{failure}");
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains(message), "{failure}: {detail}");
        }
    }
}

#[tokio::test]
async fn an_answer_is_complete_only_with_a_finish_reason() {
    for end in [
        "data: [DONE]\n\n".to_owned(),
        // Sent with every event by some servers.
        finish("") + "data: [DONE]\n\n",
        finish("error") + "data: [DONE]\n\n",
        finish("content_filter") + "data: [DONE]\n\n",
        String::new(),
    ] {
        for text in [String::new(), token("A")] {
            let (name, problem) = last_event_of("text/event-stream", &(text + &end)).await;
            assert_eq!(name, "error", "{end:?}: {problem}");
        }
    }
}

#[tokio::test]
async fn a_complete_answer_is_not_an_error_however_the_response_ends() {
    let finished = token("A") + &finish("stop");
    let usage = r#"{"choices": null, "usage": {"total_tokens": 3}}"#;
    let whole = json!({"choices": [{"message": {"content": "A"}, "finish_reason": "stop"}]});
    let of_parts = json!({"choices": [{"delta": {"content": [{"type": "text", "text": "A"}]}}]});
    let other_choice = json!({"choices": [{"index": 1, "delta": {"content": "B"}}]});
    let sse = "text/event-stream";
    for (content_type, body) in [
        (sse, finished.clone()),
        (sse, finished.trim_end().to_owned()),
        (sse, format!("{finished}data: {usage}\n\ndata: [DONE]\n\n")),
        (sse, format!("{finished}data: [DONE]")),
        (sse, format!("{finished}data: {{not json\n\n")),
        (
            sse,
            format!("data: \n\n: ping\n\nevent: ping\ndata: x\n\n{finished}"),
        ),
        (sse, token("A") + &finish("length")),
        (sse, finished.replace('\n', "\r\n")),
        (
            sse,
            finished.replace("\"delta\"", "\"error\":null,\"delta\""),
        ),
        (sse, format!("data: {of_parts}\n\n{}", finish("stop"))),
        (sse, format!("data: {other_choice}\n\n{finished}")),
        ("application/json", whole.to_string()),
    ] {
        let (name, event) = last_event_of(content_type, &body).await;
        assert_eq!(name, "done", "{body}: {event}");
        assert_eq!(event["output"], json!({"text": "A"}), "{body}");
    }
}

#[tokio::test]
async fn a_connection_that_breaks_or_stays_open_after_a_complete_answer_is_not_an_error() {
    let chunks =
        || [token("A"), finish("stop")].map(|chunk| Ok::<_, std::io::Error>(Bytes::from(chunk)));
    let broken = move || {
        let chunks = futures_util::stream::iter(chunks());
        let failure = futures_util::stream::once(async {
            // The server sends what it has before it sees the failure.
            tokio::task::yield_now().await;
            Err(std::io::Error::other("broken"))
        });
        Body::from_stream(futures_util::StreamExt::chain(chunks, failure))
    };
    let open = move || {
        let chunks = futures_util::stream::iter(chunks());
        Body::from_stream(futures_util::StreamExt::chain(
            chunks,
            futures_util::stream::pending(),
        ))
    };
    let respond = async |body: Body| ([("content-type", "text/event-stream")], body);
    for complete in [
        post(async move || respond(broken()).await),
        post(async move || respond(open()).await),
    ] {
        let (models, _upstream) = models_with(complete).await;
        let request = json!({"model": "tiny-llm", "input": "Hi"});
        let response = models.post("/api/inference/stream", &request).await;
        let (name, event) = Events::of(response).rest().await.pop().unwrap();
        assert_eq!(name, "done", "{event}");
    }
}

#[tokio::test]
async fn a_failure_with_status_200_is_an_error_without_streaming_too() {
    let (models, _upstream, fake) = servers().await;
    for (body, wanted) in [
        (
            r#"{"error": {"message": "out of memory"}}"#,
            "out of memory",
        ),
        (
            r#"{"object": "error", "message": "out of memory"}"#,
            "out of memory",
        ),
        (
            r#"{"choices": [{"message": {"content": "A"}, "finish_reason": "content_filter"}]}"#,
            "content_filter",
        ),
    ] {
        fake.respond_next(200, body);
        let response = models
            .post(
                "/api/inference",
                json!({"model": "tiny-llm", "input": "Hi"}),
            )
            .await;
        assert_eq!(response.status(), 502, "{body}");
        let problem: Value = response.json().await.unwrap();
        assert!(
            problem["detail"].as_str().unwrap().contains(wanted),
            "{problem}"
        );
    }
}

/// A response that repeats a chunk without end.
fn endless(status: u16, content_type: &'static str, chunk: &'static str) -> Response {
    let chunks = futures_util::stream::repeat_with(move || {
        Ok::<_, Infallible>(Bytes::from(chunk.repeat(1024)))
    });
    let status = http::StatusCode::from_u16(status).unwrap();
    (
        status,
        [("content-type", content_type)],
        Body::from_stream(chunks),
    )
        .into_response()
}

#[tokio::test]
async fn an_endless_response_of_the_upstream_is_an_error() {
    for (status, content_type, chunk, wanted) in [
        (200, "application/json", "          ", "larger than"),
        (200, "text/event-stream", "data: xxxxxxxxx", "larger than"),
        (200, "text/event-stream", "data: xxxxxxxxx\n", "larger than"),
        (200, "text/event-stream", ": keep-alive\n\n", "larger than"),
        (
            200,
            "text/event-stream",
            "data: {\"choices\":[{\"delta\":{\"content\":\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\"}}]}\n\n",
            "larger than",
        ),
        (200, "text/html", "<p>xxxxxxx</p>\n", "larger than"),
        (500, "text/plain", "out of memory ", "out of memory"),
    ] {
        let complete = post(async move || endless(status, content_type, chunk));
        let (models, _upstream) = models_with(complete).await;
        let request = json!({"model": "tiny-llm", "input": "Hi"});
        let response = models.post("/api/inference", &request).await;
        assert_eq!(response.status(), 502, "{chunk:?}");
        let problem: Value = response.json().await.unwrap();
        assert!(
            problem["detail"].as_str().unwrap().contains(wanted),
            "{chunk:?}: {problem}"
        );

        let response = models.post("/api/inference/stream", &request).await;
        let problem = if response.status() == 200 {
            let (name, problem) = Events::of(response).rest().await.pop().unwrap();
            assert_eq!(name, "error", "{chunk:?}");
            problem
        } else {
            response.json().await.unwrap()
        };
        assert!(
            problem["detail"].as_str().unwrap().contains(wanted),
            "{chunk:?}: {problem}"
        );
    }
}

#[tokio::test]
async fn an_endless_list_of_models_is_an_error() {
    let list = get(async || endless(200, "application/json", "          "));
    let upstream = Server::of(Router::new().route("/v1/models", list)).await;
    let models = Server::of_models(Some(upstream_at(&upstream))).await;
    let list = models.get_json("/api/models").await;
    let reason = list["upstream"]["reason"].as_str().unwrap();
    assert!(reason.contains("larger than"), "{reason}");
}

#[tokio::test]
async fn a_redirect_to_another_server_is_refused() {
    let (other, mut requests) = mpsc::channel::<()>(8);
    let record = move || {
        let other = other.clone();
        async move {
            let _ = other.send(()).await;
            Json(json!({"choices": [{"message": {"content": "A"}}]}))
        }
    };
    let other = Server::of(Router::new().fallback(record)).await;
    for status in [301_u16, 302, 303, 307, 308] {
        let target = other.url("/v1/chat/completions");
        let complete = post(async move || {
            let status = http::StatusCode::from_u16(status).unwrap();
            (status, [("location", target)])
        });
        let (models, _upstream) = models_with(complete).await;
        for path in ["/api/inference", "/api/inference/stream"] {
            let response = models
                .post(path, json!({"model": "tiny-llm", "input": "Hi"}))
                .await;
            assert_eq!(response.status(), 502, "{status}");
            let problem: Value = response.json().await.unwrap();
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains(&other.address.to_string()), "{detail}");
        }
    }
    assert!(
        requests.try_recv().is_err(),
        "the other server got a request"
    );
}

#[tokio::test]
async fn a_redirect_within_the_server_is_followed() {
    let moved = post(async || {
        (
            http::StatusCode::TEMPORARY_REDIRECT,
            [("location", "/v2/chat")],
        )
    });
    let answer = post(async || Json(json!({"choices": [{"message": {"content": "A"}}]})));
    let router = Router::new()
        .route(
            "/v1/models",
            get(async || Json(json!({"data": [{"id": "tiny-llm"}]}))),
        )
        .route("/v1/chat/completions", moved)
        .route("/v2/chat", answer);
    let upstream = Server::of(router).await;
    let models = Server::of_models(Some(upstream_at(&upstream))).await;
    let response = models
        .infer(json!({"model": "tiny-llm", "input": "Hi"}))
        .await;
    assert_eq!(response["output"], json!({"text": "A"}));
}
