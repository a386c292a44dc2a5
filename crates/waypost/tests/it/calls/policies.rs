//! Retries of refused requests, hedging, and sticky requests.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::any;
use http::Method;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceExt};
use waypost::balance::{ConsistentHash, Key, RoundRobin};
use waypost::integration::reqwest::Client;
use waypost::integration::retry::RetryPolicy;
use waypost::integration::tower::BalanceLayer;
use waypost::outlier::OutlierDetection;
use waypost::provider::MemoryProvider;
use waypost::{Instance, Selector, ServiceDiscoveryClient};

use super::plain_reqwest;
use crate::scripted::auth;

/// What an instance does with its first requests; later ones get 200 and the instance's id.
#[derive(Clone)]
enum First {
    Respond(StatusCode, Option<&'static str>),
    /// Waits until a permit is added, which no test does.
    Hang(Arc<Semaphore>),
    /// Waits for a permit and responds with 503.
    RefuseAfter(Arc<Semaphore>),
    /// Adds a permit and responds a moment later.
    LetOthersGo(Arc<Semaphore>),
}

/// Instances `0`, `1` …, and the ids of those that got a request, in order.
struct Service {
    discovery: ServiceDiscoveryClient,
    received: Arc<Mutex<Vec<String>>>,
}

impl Service {
    /// `first` has the response to the first request of each instance.
    async fn start(first: &[Option<First>]) -> Self {
        let (memory, received) = (MemoryProvider::new(), Arc::default());
        for (index, first) in first.iter().enumerate() {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            let instance = Instance::builder(auth(), "127.0.0.1".parse().unwrap(), port);
            let instance = instance.id(index.to_string()).version(index.to_string());
            memory.insert(instance.build().unwrap());
            let (id, first, requests) = (index.to_string(), first.clone(), AtomicUsize::new(0));
            let (received, requests) = (Arc::clone(&received), Arc::new(requests));
            let handler = move || {
                respond(
                    id.clone(),
                    first
                        .clone()
                        .filter(|_| requests.fetch_add(1, Ordering::SeqCst) == 0),
                    Arc::clone(&received),
                )
            };
            let app = Router::new().fallback(any(handler));
            tokio::spawn(axum::serve(listener, app).into_future());
        }
        let discovery = ServiceDiscoveryClient::builder()
            .provider(memory)
            .strategy(|| RoundRobin::starting_at(0))
            .outlier_detection(OutlierDetection::off())
            .build();
        Self {
            discovery: discovery.unwrap(),
            received,
        }
    }

    fn received(&self) -> Vec<String> {
        std::mem::take(&mut self.received.lock().unwrap())
    }

    /// Sends a request; returns the status and the body.
    async fn reqwest(&self, method: Method, policy: &RetryPolicy) -> (u16, String) {
        let client = Client::new(self.discovery.clone(), plain_reqwest());
        let request = client
            .request(method, "http://auth/")
            .policy(policy.clone());
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn tower(&self, method: Method, policy: &RetryPolicy) -> (u16, String) {
        let http = legacy::Client::builder(TokioExecutor::new()).build_http();
        let balancer = self.discovery.balancer("auth").unwrap();
        let client = BalanceLayer::retrying(balancer)
            .policy(policy.clone())
            .layer(http);
        let request = http::Request::builder().method(method).uri("/");
        let request = request.body(Empty::<bytes::Bytes>::new()).unwrap();
        let response = client.oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    /// The requests in flight at all instances.
    async fn in_flight(&self) -> usize {
        let snapshot = self.discovery.directory().lookup(&auth()).await.unwrap();
        snapshot
            .endpoints()
            .iter()
            .map(|endpoint| endpoint.in_flight())
            .sum()
    }
}

async fn respond(
    id: String,
    first: Option<First>,
    received: Arc<Mutex<Vec<String>>>,
) -> impl IntoResponse {
    received.lock().unwrap().push(id.clone());
    let mut headers = HeaderMap::new();
    match first {
        Some(First::Respond(status, retry_after)) => {
            if let Some(retry_after) = retry_after {
                headers.insert("retry-after", retry_after.parse().unwrap());
            }
            (status, headers, "refused".to_owned())
        }
        Some(First::Hang(never)) => {
            let _ = never.acquire().await;
            (StatusCode::OK, headers, "late".to_owned())
        }
        Some(First::RefuseAfter(permitted)) => {
            permitted.acquire().await.unwrap().forget();
            (
                StatusCode::SERVICE_UNAVAILABLE,
                headers,
                "refused".to_owned(),
            )
        }
        Some(First::LetOthersGo(waiting)) => {
            waiting.add_permits(1);
            sleep(Duration::from_millis(200)).await;
            (StatusCode::OK, headers, id)
        }
        None => (StatusCode::OK, headers, id),
    }
}

fn refuse(status: u16, retry_after: Option<&'static str>) -> Option<First> {
    Some(First::Respond(
        StatusCode::from_u16(status).unwrap(),
        retry_after,
    ))
}

fn hang() -> Option<First> {
    Some(First::Hang(Arc::new(Semaphore::new(0))))
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_refused_request_is_sent_again_if_the_policy_says_so() {
    let retry = RetryPolicy::new().retry_rejected(MINUTE);
    for status in [429, 503] {
        let service = Service::start(&[refuse(status, None), None]).await;
        assert_eq!(
            service.reqwest(Method::GET, &retry).await,
            (200, "1".into())
        );
        assert_eq!(service.received(), ["0", "1"], "{status}");
        let service = Service::start(&[refuse(status, Some("0")), None]).await;
        assert_eq!(service.tower(Method::GET, &retry).await, (200, "1".into()));
        // Not by default, and not if the request is not idempotent.
        for (method, policy) in [
            (Method::GET, RetryPolicy::new()),
            (Method::POST, retry.clone()),
        ] {
            let service = Service::start(&[refuse(status, None), None]).await;
            assert_eq!(
                service.reqwest(method, &policy).await,
                (status, "refused".into())
            );
            assert_eq!(service.received(), ["0"], "{status}");
        }
    }
    // Other errors are responses like any other.
    let service = Service::start(&[refuse(500, None), None]).await;
    assert_eq!(service.reqwest(Method::GET, &retry).await.0, 500);
}

#[tokio::test]
async fn a_retry_waits_for_retry_after_and_not_longer_than_the_policy_allows() {
    let service = Service::start(&[refuse(429, Some("1")), None]).await;
    let began = Instant::now();
    let retry = RetryPolicy::new().retry_rejected(MINUTE);
    assert_eq!(
        service.reqwest(Method::GET, &retry).await,
        (200, "1".into())
    );
    assert!(
        began.elapsed() >= Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
    let service = Service::start(&[refuse(503, Some("61")), None]).await;
    assert_eq!(
        service.reqwest(Method::GET, &retry).await,
        (503, "refused".into())
    );
    assert_eq!(service.received(), ["0"]);
}

#[tokio::test]
async fn the_last_refusal_is_returned() {
    let retry = RetryPolicy::new().retry_rejected(MINUTE).attempts(2);
    let refusals = [refuse(429, None), refuse(503, None), None];
    let service = Service::start(&refusals).await;
    assert_eq!(
        service.reqwest(Method::GET, &retry).await,
        (503, "refused".into())
    );
    assert_eq!(service.received(), ["0", "1"]);
    assert_eq!(service.in_flight().await, 0);
}

#[tokio::test]
async fn a_hedge_goes_to_another_instance_and_the_slow_attempt_is_cancelled() {
    let hedge = RetryPolicy::new()
        .hedge_after(Duration::from_millis(20))
        .attempt_timeout(None);
    let service = Service::start(&[hang(), None, None]).await;
    let answer = service
        .reqwest(Method::GET, &hedge.clone().attempts(2))
        .await;
    assert_eq!(answer, (200, "1".into()));
    assert!(!service.received().contains(&"2".to_owned()));
    // The lease of the loser has ended, and it has not failed.
    assert_eq!(service.in_flight().await, 0);
    let explanation = service.discovery.explain("auth").await.unwrap();
    let loser = &explanation.instances[0];
    assert_eq!((loser.succeeded, loser.failed), (0, 0));
    assert!(loser.latency_seconds.is_some());

    let service = Service::start(&[hang(), hang(), None]).await;
    let answer = service.tower(Method::GET, &hedge).await;
    assert_eq!(answer, (200, "2".into()));
}

#[tokio::test]
async fn a_refusal_waits_for_the_hedge() {
    let slow = Arc::new(Semaphore::new(0));
    // The first attempt is refused once the hedge has arrived, which succeeds after that.
    let first = Some(First::RefuseAfter(Arc::clone(&slow)));
    let second = Some(First::LetOthersGo(slow));
    for attempts in [2, 3] {
        let service = Service::start(&[first.clone(), second.clone()]).await;
        let hedge = RetryPolicy::new()
            .hedge_after(Duration::from_millis(1))
            .retry_rejected(MINUTE)
            .attempts(attempts);
        let answer = service.reqwest(Method::GET, &hedge).await;
        assert_eq!(answer, (200, "1".into()));
        assert_eq!(service.received(), ["0", "1"]);
    }
}

#[tokio::test]
async fn a_hedge_is_not_sent_for_a_post_or_to_the_same_instance() {
    let timeout = Duration::from_secs(3);
    let hedge = RetryPolicy::new()
        .hedge_after(Duration::from_millis(1))
        .attempt_timeout(timeout);
    let service = Service::start(&[hang(), None]).await;
    let client = Client::new(service.discovery.clone(), plain_reqwest()).policy(hedge.clone());
    let error = client
        .post("http://auth/")
        .send()
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("no response from 0 within 3s"), "{error}");
    assert_eq!(service.received(), ["0"]);
    // The only instance is tried again only when the attempt has failed.
    let service = Service::start(&[hang()]).await;
    assert_eq!(
        service.reqwest(Method::GET, &hedge).await,
        (200, "0".into())
    );
    assert_eq!(service.received(), ["0", "0"]);
}

#[tokio::test]
async fn hedges_are_within_the_retry_budget() {
    let hedge = RetryPolicy::new().hedge_after(Duration::ZERO).attempts(2);
    let service = Service::start(&[None, None]).await;
    let client = Client::new(service.discovery.clone(), plain_reqwest()).policy(hedge);
    let began = Instant::now();
    for _ in 0..300 {
        let response = client.get("http://auth/").send().await.unwrap();
        assert_eq!(response.status(), 200);
    }
    // A fifth of the requests, plus ten per ten seconds.
    let most = 300 / 5 + 10 + 10 * (began.elapsed().as_secs() / 10) as usize;
    let received = service.received().len();
    assert!(received <= 300 + most, "{received}");
}

#[tokio::test]
async fn a_request_with_a_selector_goes_to_instances_that_it_accepts() {
    let service = Service::start(&[None, None, None]).await;
    let client = Client::new(service.discovery.clone(), plain_reqwest());
    for _ in 0..4 {
        let request = client
            .get("http://auth/")
            .select(Selector::new().version("2"));
        assert_eq!(request.send().await.unwrap().text().await.unwrap(), "2");
    }
    let none = client
        .get("http://auth/")
        .select(Selector::new().version("9"));
    let error = none.send().await.unwrap_err().to_string();
    assert!(
        error.contains("has version \"9\"; its 3 instances have versions"),
        "{error}"
    );
}

#[tokio::test]
async fn requests_with_a_key_stay_at_its_instance() {
    let service = Service::start(&[None, None, None]).await;
    service.discovery.set_strategy(ConsistentHash::new);
    let client = Client::new(service.discovery.clone(), plain_reqwest());
    let mut owners = std::collections::BTreeSet::new();
    for user in 0..20_u8 {
        let send = async || {
            let request = client.get("http://auth/").key(Key::new([user]));
            request.send().await.unwrap().text().await.unwrap()
        };
        let owner = send().await;
        for _ in 0..3 {
            assert_eq!(send().await, owner);
        }
        owners.insert(owner);
    }
    assert!(owners.len() > 1, "{owners:?}");
}

/// Not in real time: the clock is paused, and no server is involved.
#[tokio::test(start_paused = true)]
async fn a_hanging_attempt_fails_after_fifteen_seconds_by_default() {
    let memory = MemoryProvider::new();
    let instance = Instance::builder(auth(), "127.0.0.1".parse().unwrap(), 80).id("a");
    memory.insert(instance.build().unwrap());
    let discovery = ServiceDiscoveryClient::new(Arc::new(memory));
    let hanging = tower::service_fn(|_: http::Request<Empty<bytes::Bytes>>| async {
        sleep(Duration::from_secs(3_600)).await;
        Ok::<_, std::convert::Infallible>(http::Response::new(Empty::<bytes::Bytes>::new()))
    });
    let client = BalanceLayer::new(discovery.balancer("auth").unwrap()).layer(hanging);
    let request = http::Request::new(Empty::new());
    let began = Instant::now();
    let error = client.oneshot(request).await.unwrap_err().to_string();
    assert_eq!(error, "no response from a within 15s");
    assert_eq!(began.elapsed().as_secs(), 15);
}
