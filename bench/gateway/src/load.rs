//! A constant rate of requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};

/// Requests that are sent at a constant rate, whether or not earlier ones have been answered. Every other
/// one is a POST, which a gateway must not repeat.
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Outcome>,
}

/// The results of a load.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub(crate) sent: u64,
    /// Requests without a response of status 200, with the first reasons.
    pub(crate) failed: u64,
    pub(crate) reasons: Vec<String>,
    pub(crate) slowest: Duration,
}

impl Load {
    /// Starts requests to a URL, a number per second.
    pub(crate) fn start(url: String, per_second: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(send(url, per_second, Arc::clone(&stop)));
        Self { stop, task }
    }

    /// Stops and waits for the open requests.
    pub(crate) async fn end(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("no panic")
    }
}

async fn send(url: String, per_second: u32, stop: Arc<AtomicBool>) -> Outcome {
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let slowest = Arc::new(AtomicU64::new(0));
    let mut open = JoinSet::new();
    let mut outcome = Outcome::default();
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        outcome.sent += 1;
        let method = if outcome.sent % 2 == 0 { "GET" } else { "POST" };
        let request = Request::builder().method(method).uri(&url);
        let request = request.body(Full::new(Bytes::from_static(b"x")));
        let response = client.request(request.expect("a request"));
        let slowest = Arc::clone(&slowest);
        open.spawn(async move {
            let began = Instant::now();
            let answered = answer(response).await;
            let took = began.elapsed().as_micros() as u64;
            slowest.fetch_max(took, Ordering::Relaxed);
            answered.map_err(|error| format!("{method}: {error}"))
        });
        while let Some(ended) = open.try_join_next() {
            outcome.count(ended.expect("no panic"));
        }
    }
    while let Some(ended) = open.join_next().await {
        outcome.count(ended.expect("no panic"));
    }
    outcome.slowest = Duration::from_micros(slowest.load(Ordering::Relaxed));
    outcome
}

async fn answer(response: hyper_util::client::legacy::ResponseFuture) -> Result<(), String> {
    let response = response.await.map_err(|error| error.to_string())?;
    let status = response.status();
    let body = response.into_body().collect().await;
    let body = body.map_err(|error| error.to_string())?.to_bytes();
    if status == StatusCode::OK {
        return Ok(());
    }
    Err(format!("{status}: {}", String::from_utf8_lossy(&body)))
}

impl Outcome {
    fn count(&mut self, answered: Result<(), String>) {
        if let Err(reason) = answered {
            self.failed += 1;
            if self.reasons.len() < 5 {
                self.reasons.push(reason);
            }
        }
    }
}
