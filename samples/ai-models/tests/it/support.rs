//! A server with its client, and a reader of streams.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use futures_util::StreamExt;
use reqwest::Response;
use serde_json::Value;
use sse_stream::SseStream;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};
use waypost_ai_models::Upstream;
use waypost_testkit::free_ports;

/// The time limit for any event that a test expects, long enough for a busy machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// A server that stops with the test.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
    pub(crate) client: reqwest::Client,
}

impl Server {
    /// The service, as instance `ai-models-7`.
    pub(crate) async fn of_models(upstream: Option<Upstream>) -> Self {
        Self::of(waypost_ai_models::router("ai-models-7", upstream)).await
    }

    pub(crate) async fn of(router: Router) -> Self {
        // No other test gets this port, so the server can be stopped and started again.
        let [port] = free_ports();
        Self::at(&format!("127.0.0.1:{port}"), router).await
    }

    pub(crate) async fn at(address: &str, router: Router) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(TIMEOUT)
            .build()
            .unwrap();
        Self {
            address,
            task,
            client,
        }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.client.get(self.url(path)).send().await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: impl ToString) -> Response {
        self.client
            .post(self.url(path))
            .body(body.to_string())
            .send()
            .await
            .unwrap()
    }

    pub(crate) async fn get_json(&self, path: &str) -> Value {
        let response = self.get(path).await;
        assert_eq!(response.status(), 200, "{path}");
        response.json().await.unwrap()
    }

    /// Runs a model and returns the response, which must be a success. Retries while the service is too
    /// busy, as it may be on a slow machine.
    pub(crate) async fn infer(&self, body: Value) -> Value {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let response = self.post("/api/inference", &body).await;
            let status = response.status();
            let result: Value = response.json().await.unwrap();
            let is_busy = result["type"] == "urn:problem-type:waypost:overloaded";
            if is_busy && Instant::now() < deadline {
                sleep(Duration::from_millis(100)).await;
                continue;
            }
            assert_eq!(status, 200, "{body} → {result}");
            return result;
        }
    }

    pub(crate) fn stop(&self) {
        self.task.abort();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The events of a stream, each with its name.
pub(crate) struct Events(futures_util::stream::BoxStream<'static, (String, Value)>);

impl Events {
    pub(crate) fn of(response: Response) -> Self {
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let events = SseStream::from_bytes_stream(response.bytes_stream());
        Self(Box::pin(events.filter_map(|event| async move {
            let event = event.unwrap();
            Some((event.event?, serde_json::from_str(&event.data?).unwrap()))
        })))
    }

    pub(crate) async fn next(&mut self) -> Option<(String, Value)> {
        tokio::time::timeout(TIMEOUT, self.0.next())
            .await
            .expect("an event should arrive in time")
    }

    pub(crate) async fn rest(mut self) -> Vec<(String, Value)> {
        let mut rest = Vec::new();
        while let Some(event) = self.next().await {
            rest.push(event);
        }
        rest
    }
}
