//! 500 requests a second to three processes, of which one is killed and another stalls.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy, rt::TokioExecutor};
use tokio::{
    task::JoinSet,
    time::{Instant, interval, sleep, timeout},
};
use tower::{Layer, ServiceExt, service_fn};
use waypost::{
    Explanation, Fate, Health, Instance, MemoryProvider, ServiceDiscoveryClient,
    integration::{reqwest::Client, tower::BalanceLayer},
};
use waypost_testkit::free_ports;

use super::{Server, plain_reqwest};
use crate::scripted::auth;

/// One load at a time: they measure latencies.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// How long an instance may take to answer. One that is well takes a few milliseconds.
const ATTEMPT: Duration = Duration::from_millis(500);

/// What happens, by the time since the load began.
const KILLED: Duration = Duration::from_secs(1);
const NOTICED_BY_THE_REGISTRY: Duration = Duration::from_millis(2_200);
const STOPPED: Duration = Duration::from_millis(2_500);
const EJECTED: Duration = Duration::from_millis(3_500);
const CONTINUED: Duration = Duration::from_millis(4_500);
const SECONDS: u64 = 6;

struct World {
    memory: MemoryProvider,
    servers: Vec<Server>,
    discovery: ServiceDiscoveryClient,
}

impl World {
    async fn new() -> Self {
        let (memory, mut servers) = (MemoryProvider::new(), Vec::new());
        for port in free_ports::<3>() {
            servers.push(Server::start(port).await);
            memory.insert(instance(port, Health::Passing));
        }
        // Turns send a third of the load to each, however it fares: what helps is only ejection.
        let discovery = ServiceDiscoveryClient::builder()
            .provider(memory.clone())
            .strategy_named("round_robin");
        let discovery = discovery.build().unwrap();
        Self {
            memory,
            servers,
            discovery,
        }
    }

    /// Kills one and stalls another while the load lasts. Gives what is explained after each.
    async fn suffer(
        mut self,
        explain: impl AsyncFn() -> Explanation,
    ) -> (Vec<Server>, [Explanation; 2]) {
        let begun = Instant::now();
        let at = |moment: Duration| tokio::time::sleep_until(begun + moment);
        at(KILLED).await;
        self.servers[0].process.kill().unwrap();
        at(NOTICED_BY_THE_REGISTRY).await;
        let after_kill = explain().await;
        let port = self.servers[0].port;
        self.memory.insert(instance(port, Health::Critical));
        at(STOPPED).await;
        self.servers[1].signal(rustix::process::Signal::STOP);
        at(CONTINUED - Duration::from_millis(100)).await;
        let after_stall = explain().await;
        at(CONTINUED).await;
        self.servers[1].signal(rustix::process::Signal::CONT);
        (self.servers, [after_kill, after_stall])
    }
}

fn instance(port: u16, health: Health) -> Instance {
    let builder = Instance::builder(auth(), "127.0.0.1".parse().unwrap(), port);
    let builder = builder.id(port.to_string()).path_prefix("/v2");
    builder.health(health).build().unwrap()
}

/// What came of the requests.
#[derive(Default)]
struct Load {
    failed: AtomicUsize,
    by_instance: Mutex<BTreeMap<String, usize>>,
    /// When they were sent and how long they took.
    latencies: Mutex<Vec<(Duration, Duration)>>,
}

impl Load {
    async fn run<F>(send: impl Fn() -> F) -> Self
    where
        F: Future<Output = Result<String, String>> + Send + 'static,
    {
        let load = Arc::new(Self::default());
        let (mut requests, mut ticks) = (JoinSet::new(), interval(Duration::from_millis(2)));
        let begun = Instant::now();
        for _ in 0..SECONDS * 500 {
            ticks.tick().await;
            let (request, load) = (send(), Arc::clone(&load));
            requests.spawn(async move {
                let started = Instant::now();
                match request.await {
                    Ok(instance) => {
                        let mut by_instance = load.by_instance.lock().unwrap();
                        *by_instance.entry(instance).or_default() += 1;
                    }
                    Err(error) => {
                        eprintln!("{error}");
                        load.failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
                let latency = (started - begun, started.elapsed());
                load.latencies.lock().unwrap().push(latency);
            });
        }
        while requests.join_next().await.is_some() {}
        Arc::into_inner(load).unwrap()
    }

    fn p99(&self, from: Duration, to: Duration) -> Duration {
        let latencies = self.latencies.lock().unwrap();
        let sent = latencies
            .iter()
            .filter(|(sent, _)| (from..to).contains(sent));
        let mut sent: Vec<_> = sent.map(|(_, latency)| *latency).collect();
        assert!(sent.len() > 100, "{} requests", sent.len());
        sent.sort();
        sent[sent.len() * 99 / 100]
    }
}

fn judge(load: &Load, servers: &[Server], [after_kill, after_stall]: [Explanation; 2]) {
    assert_eq!(load.failed.load(Ordering::Relaxed), 0);
    assert_eq!(load.by_instance.lock().unwrap().len(), 3);
    let fate = |explanation: &Explanation, server: &Server| {
        let mut instances = explanation.instances.iter();
        let is_it = |id: &str| id == server.id();
        instances.find(|i| is_it(i.id.as_str())).unwrap().fate
    };
    // While the stall still lasts, nobody waits for it any more; in its first moments some did.
    let during = load.p99(STOPPED, STOPPED + ATTEMPT / 2);
    let after = load.p99(EJECTED, CONTINUED - Duration::from_millis(100));
    println!("p99 {during:?} as the stall begins, {after:?} once it is ejected");
    assert!(during >= ATTEMPT, "{during:?}");
    assert!(after < ATTEMPT, "{after:?}");
    // Both stand in the explanation and in the metrics.
    assert_eq!(fate(&after_kill, &servers[0]), Fate::Ejected);
    assert_eq!(after_kill.counters.ejected_consecutive_failures, 1);
    assert_eq!(fate(&after_stall, &servers[0]), Fate::Critical);
    assert_eq!(fate(&after_stall, &servers[1]), Fate::Ejected);
    assert_eq!(after_stall.counters.ejected_consecutive_failures, 2);
    assert_eq!(after_stall.counters.ejected_now, 1);
    let json = serde_json::to_value(&after_stall).unwrap();
    let ejected = json["instances"].as_array().unwrap();
    let cause = ejected.iter().find_map(|i| i["ejection"]["cause"].as_str());
    assert_eq!(cause, Some("consecutive_failures"));
}

#[tokio::test(flavor = "multi_thread")]
async fn through_tower_no_request_is_lost_with_a_killed_instance_and_a_stalled_one_is_ejected() {
    let _turn = TURN.lock().await;
    let world = World::new().await;
    let http = legacy::Client::builder(TokioExecutor::new()).build_http::<Full<bytes::Bytes>>();
    let limited = service_fn(move |request| {
        let answer = timeout(ATTEMPT, http.request(request));
        async move {
            let answer = answer.await.map_err(io::Error::other)?;
            answer.map_err(io::Error::other)
        }
    });
    let balancer = world.discovery.balancer("auth").unwrap();
    let client = BalanceLayer::retrying(balancer).layer(limited);
    let explain = {
        let client = client.clone();
        async move || client.balancer().explain()
    };
    let requests = Load::run(|| {
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
    });
    let (load, (servers, explained)) = tokio::join!(requests, world.suffer(explain));
    judge(&load, &servers, explained);
}

#[tokio::test(flavor = "multi_thread")]
async fn through_reqwest_no_request_is_lost_with_a_killed_instance_and_a_stalled_one_is_ejected() {
    let _turn = TURN.lock().await;
    let world = World::new().await;
    let discovery = world.discovery.clone();
    let client = Client::new(discovery.clone(), plain_reqwest()).attempt_timeout(ATTEMPT);
    let explain = async || discovery.explain("auth").await.unwrap();
    let requests = Load::run(|| {
        let request = client.get("http://auth/who");
        async move {
            let answer = request.send().await.map_err(|error| error.to_string())?;
            answer.text().await.map_err(|error| error.to_string())
        }
    });
    let (load, (servers, explained)) = tokio::join!(requests, world.suffer(explain));
    judge(&load, &servers, explained);
    let other = Client::new(discovery.clone(), plain_reqwest());
    let error = other.get("http://nobody/who").send().await.unwrap_err();
    assert!(error.to_string().contains("unknown"), "{error}");
}

/// The same without any limit of time: what hangs is avoided for its queue, though nothing failed.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_limit_of_time_a_stalled_instance_is_avoided_by_its_queue() {
    let _turn = TURN.lock().await;
    let world = World::new().await;
    let discovery = &world.discovery;
    discovery.set_strategy_named("p2c_peak_ewma").unwrap();
    let client = Client::new(discovery.clone(), plain_reqwest());
    let requests = Load::run(|| {
        let request = client.get("http://auth/who");
        async move {
            let answer = request.send().await.map_err(|error| error.to_string())?;
            answer.text().await.map_err(|error| error.to_string())
        }
    });
    let stall = async {
        sleep(STOPPED).await;
        world.servers[1].signal(rustix::process::Signal::STOP);
        sleep(CONTINUED - STOPPED).await;
        world.servers[1].signal(rustix::process::Signal::CONT);
    };
    let (load, ()) = tokio::join!(requests, stall);
    assert_eq!(load.failed.load(Ordering::Relaxed), 0);
    let latencies = load.latencies.lock().unwrap();
    let hung = latencies
        .iter()
        .filter(|(_, latency)| *latency > Duration::from_secs(1));
    // A third of those that hang for over a second would be 165.
    let hung = hung.count();
    assert!(hung < 165, "{hung} requests hung");
}
