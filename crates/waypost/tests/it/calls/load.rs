//! Concurrent requests to three server processes, of which one is killed and another is stopped.

use std::collections::BTreeMap;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tower::{Layer, ServiceExt, service_fn};
use waypost::balance::{Explanation, Selection};
use waypost::integration::reqwest::Client;
use waypost::integration::tower::BalanceLayer;
use waypost::outlier::OutlierDetection;
use waypost::provider::MemoryProvider;
use waypost::{Health, Instance, ServiceDiscoveryClient};
use waypost_testkit::free_ports;

use super::{Server, plain_reqwest};
use crate::scripted::auth;

/// The timeout of an attempt. A response takes a few milliseconds, on a busy machine much longer.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(8);

/// The number of concurrent requests.
const CONCURRENCY: usize = 16;

struct Servers {
    memory: MemoryProvider,
    servers: Vec<Server>,
    discovery: ServiceDiscoveryClient,
}

impl Servers {
    async fn start() -> Self {
        let (memory, mut servers) = (MemoryProvider::new(), Vec::new());
        for port in free_ports::<3>() {
            servers.push(Server::start(port).await);
            memory.insert(instance(port, Health::Passing));
        }
        // Round robin sends a third of the requests to each, so only ejection helps.
        // An ejection lasts until the end of the test.
        let mut outliers = OutlierDetection::default();
        outliers.base_ejection = Duration::from_secs(60 * 60);
        outliers.max_ejection = Duration::from_secs(60 * 60);
        let discovery = ServiceDiscoveryClient::builder()
            .provider(memory.clone())
            .outlier_detection(outliers)
            .strategy_named("round_robin");
        let discovery = discovery.build().unwrap();
        Self {
            memory,
            servers,
            discovery,
        }
    }

    /// Kills one of the three servers and stops another under load. No request may fail, and only a
    /// few may wait for the timeout of an attempt at the stopped one.
    async fn kill_and_stop<F>(
        mut self,
        send: impl Fn() -> F,
        explain: impl AsyncFn() -> Explanation,
    ) where
        F: Future<Output = Result<String, String>>,
    {
        let load = Load::default();
        load.run(300, &send).await;
        assert_eq!(load.by_instance.lock().unwrap().len(), 3);

        // It is killed with requests in flight.
        let kill = async {
            load.wait_for(400).await;
            self.servers[0].process.kill().unwrap();
            self.servers[0].process.wait().unwrap();
        };
        tokio::join!(load.run(300, &send), kill);
        load.run(300, &send).await;
        let after_kill = explain().await;
        assert_eq!(selection(&after_kill, &self.servers[0]), Selection::Ejected);
        assert_eq!(after_kill.counters.ejected_consecutive_failures, 1);

        // The registry reports it as critical, so that another endpoint may be ejected.
        let port = self.servers[0].port;
        self.memory.insert(instance(port, Health::Critical));
        self.servers[1].signal(rustix::process::Signal::STOP);
        let waited = load.run(200, &send).await;
        // Five consecutive failures eject it. Until then each concurrent caller may send it one
        // request, and a second one if it comes before the fifth failure.
        println!("{waited} requests waited for the stopped server");
        assert!((5..=2 * CONCURRENCY).contains(&waited), "{waited} waited");
        let after_stall = explain().await;
        assert_eq!(
            selection(&after_stall, &self.servers[0]),
            Selection::Critical
        );
        assert_eq!(
            selection(&after_stall, &self.servers[1]),
            Selection::Ejected
        );
        assert_eq!(after_stall.counters.ejected_consecutive_failures, 2);
        assert_eq!(after_stall.counters.ejected_now, 1);
        let json = serde_json::to_value(&after_stall).unwrap();
        let ejected = json["instances"].as_array().unwrap();
        let cause = ejected.iter().find_map(|i| i["ejection"]["cause"].as_str());
        assert_eq!(cause, Some("consecutive_failures"));

        // It is still stopped, and no request waits for it.
        assert_eq!(load.run(300, &send).await, 0);
        self.servers[1].signal(rustix::process::Signal::CONT);
        load.run(100, &send).await;
        assert_eq!(*load.failed.lock().unwrap(), Vec::<String>::new());
    }
}

fn instance(port: u16, health: Health) -> Instance {
    let builder = Instance::builder(auth(), "127.0.0.1".parse().unwrap(), port);
    let builder = builder.id(port.to_string()).path_prefix("/v2");
    builder.health(health).build().unwrap()
}

fn selection(explanation: &Explanation, server: &Server) -> Selection {
    let mut instances = explanation.instances.iter();
    let found = instances.find(|instance| instance.id.as_str() == server.id());
    found.unwrap().selection
}

/// The results of requests.
#[derive(Default)]
struct Load {
    answered: AtomicUsize,
    failed: Mutex<Vec<String>>,
    by_instance: Mutex<BTreeMap<String, usize>>,
}

impl Load {
    /// Sends this many requests. Returns how many took longer than the timeout of an attempt.
    async fn run<F>(&self, count: usize, send: &impl Fn() -> F) -> usize
    where
        F: Future<Output = Result<String, String>>,
    {
        let (sent, waited) = (AtomicUsize::new(0), AtomicUsize::new(0));
        join_all((0..CONCURRENCY).map(|_| async {
            while sent.fetch_add(1, Ordering::Relaxed) < count {
                let started = Instant::now();
                match send().await {
                    Ok(instance) => {
                        *self
                            .by_instance
                            .lock()
                            .unwrap()
                            .entry(instance)
                            .or_default() += 1;
                    }
                    Err(error) => self.failed.lock().unwrap().push(error),
                }
                self.answered.fetch_add(1, Ordering::Relaxed);
                waited.fetch_add(
                    usize::from(started.elapsed() >= ATTEMPT_TIMEOUT),
                    Ordering::Relaxed,
                );
            }
        }))
        .await;
        waited.into_inner()
    }

    /// Waits until this many requests have been answered.
    async fn wait_for(&self, answered: usize) {
        while self.answered.load(Ordering::Relaxed) < answered {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn tower_loses_no_request_when_one_instance_is_killed_and_another_stalls() {
    let servers = Servers::start().await;
    let http = legacy::Client::builder(TokioExecutor::new()).build_http::<Full<bytes::Bytes>>();
    let limited = service_fn(move |request| {
        let answer = timeout(ATTEMPT_TIMEOUT, http.request(request));
        async move {
            let answer = answer.await.map_err(io::Error::other)?;
            answer.map_err(io::Error::other)
        }
    });
    let balancer = servers.discovery.balancer("auth").unwrap();
    let client = BalanceLayer::retrying(balancer).layer(limited);
    let explain = {
        let client = client.clone();
        async move || client.balancer().explain()
    };
    let send = || {
        let client = client.clone();
        async move {
            let request = http::Request::get("http://auth/who").body(Full::default());
            let answer = client.oneshot(request.unwrap()).await;
            let answer = answer.map_err(|error| format!("{error}: {:?}", error.source()))?;
            assert!(answer.status().is_success());
            let body = answer.into_body().collect().await;
            let body = body.map_err(|error| error.to_string())?.to_bytes();
            Ok(String::from_utf8_lossy(&body).into_owned())
        }
    };
    servers.kill_and_stop(send, explain).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn reqwest_loses_no_request_when_one_instance_is_killed_and_another_stalls() {
    let servers = Servers::start().await;
    let discovery = servers.discovery.clone();
    let client = Client::new(discovery.clone(), plain_reqwest()).attempt_timeout(ATTEMPT_TIMEOUT);
    let explain = async || discovery.explain("auth").await.unwrap();
    servers.kill_and_stop(|| who(&client), explain).await;
    let other = Client::new(discovery.clone(), plain_reqwest());
    let error = other.get("http://nobody/who").send().await.unwrap_err();
    assert!(error.to_string().contains("unknown"), "{error}");
}

/// Returns the instance that responds.
fn who(client: &Client) -> impl Future<Output = Result<String, String>> + use<> {
    let request = client.get("http://auth/who");
    async move {
        let answer = request.send().await.map_err(|error| error.to_string())?;
        answer.text().await.map_err(|error| error.to_string())
    }
}

/// Without a timeout no request fails, but strategies that count requests in flight avoid the
/// stopped server.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_timeout_a_stalled_instance_is_avoided_by_its_requests_in_flight() {
    const REQUESTS: usize = 1500;
    let servers = Servers::start().await;
    let discovery = &servers.discovery;
    discovery.set_strategy_named("p2c_peak_ewma").unwrap();
    let client = Client::new(discovery.clone(), plain_reqwest());
    for _ in 0..30 {
        who(&client).await.unwrap();
    }
    servers.servers[1].signal(rustix::process::Signal::STOP);
    let hanging = async || {
        let explanation = discovery.explain("auth").await.unwrap();
        let mut instances = explanation.instances.iter();
        let stalled = instances.find(|instance| instance.id.as_str() == servers.servers[1].id());
        stalled.unwrap().in_flight
    };
    let (mut requests, mut answered) = (JoinSet::new(), 0);
    for sent in 1..=REQUESTS {
        requests.spawn(who(&client));
        // Waits until it is answered or hangs.
        let deadline = Instant::now() + Duration::from_secs(60);
        while answered + hanging().await < sent {
            if let Ok(answer) = timeout(Duration::from_millis(1), requests.join_next()).await {
                answer.unwrap().unwrap().unwrap();
                answered += 1;
            }
            assert!(Instant::now() < deadline, "request {sent} got lost");
        }
    }
    let hung = hanging().await;
    println!("{hung} of {REQUESTS} requests hung");
    // Round robin would send it a third.
    assert!(hung < REQUESTS / 3, "{hung} requests hung");
    servers.servers[1].signal(rustix::process::Signal::CONT);
    while let Some(answer) = requests.join_next().await {
        answer.unwrap().unwrap();
    }
}
