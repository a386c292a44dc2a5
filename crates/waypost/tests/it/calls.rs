//! Calls through Tower and reqwest, to real processes that are killed and stopped.

use std::{
    collections::BTreeMap,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use http_body_util::Full;
use hyper_util::{client::legacy, rt::TokioExecutor};
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{Instant, interval, sleep},
};
use tower::{Layer, ServiceExt};
use waypost::{
    Balancer, Fate, Instance, MemoryProvider, ServiceDiscoveryClient,
    integration::{
        reqwest::Client,
        tonic::BalancedChannel,
        tower::{BalanceLayer, changes},
    },
};
use waypost_testkit::free_ports;

use crate::scripted::auth;

/// Not a test: what the tests below run in processes of its own.
#[tokio::test]
#[ignore = "runs for ever, in a process of its own"]
async fn server_of_the_calls() {
    let Ok(port) = std::env::var("WAYPOST_TEST_PORT") else {
        return;
    };
    let address = format!("127.0.0.1:{port}");
    let listener = tokio::net::TcpListener::bind(&address).await.unwrap();
    let hello = move || async move { port };
    let posts = axum::routing::post(hello.clone()).get(hello);
    axum::serve(listener, axum::Router::new().route("/v2/who", posts))
        .await
        .unwrap();
}

/// The same over gRPC.
#[tokio::test]
#[ignore = "runs for ever, in a process of its own"]
async fn grpc_server_of_the_calls() {
    let Ok(port) = std::env::var("WAYPOST_TEST_PORT") else {
        return;
    };
    let (_reporter, health) = tonic_health::server::health_reporter();
    let server = tonic::transport::Server::builder().add_service(health);
    let address = format!("127.0.0.1:{port}").parse().unwrap();
    server.serve(address).await.unwrap();
}

struct Server {
    port: u16,
    process: Child,
}

impl Server {
    async fn start(port: u16) -> Self {
        Self::run("server_of_the_calls", port).await
    }

    async fn run(what: &str, port: u16) -> Self {
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("calls::{what}"), "--ignored"])
            .env("WAYPOST_TEST_PORT", port.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { port, process };
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(Instant::now() < deadline, "the server doesn't start");
            sleep(Duration::from_millis(10)).await;
        }
        server
    }

    fn id(&self) -> String {
        self.port.to_string()
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_grpc_channel_follows_the_instances_and_survives_a_killed_one() {
    use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

    let memory = MemoryProvider::new();
    let instance = |port: u16| {
        let builder = Instance::builder(auth(), "127.0.0.1".parse().unwrap(), port);
        builder.id(port.to_string()).scheme("grpc").build().unwrap()
    };
    let ports = free_ports::<3>();
    let mut servers = Vec::new();
    for port in ports {
        servers.push(Server::run("grpc_server_of_the_calls", port).await);
    }
    memory.replace(&auth(), ports[..2].iter().map(|port| instance(*port)));
    let discovery = ServiceDiscoveryClient::builder().provider(memory.clone());
    let channel = BalancedChannel::new(&discovery.build().unwrap(), "auth").unwrap();
    let connections = async |count: usize| {
        let deadline = Instant::now() + Duration::from_secs(10);
        while channel.connections() != count {
            assert!(
                Instant::now() < deadline,
                "{} connections",
                channel.connections()
            );
            sleep(Duration::from_millis(10)).await;
        }
    };
    // Without any call: two connections, then three, then two again.
    connections(2).await;
    memory.insert(instance(ports[2]));
    connections(3).await;
    memory.remove(&ports[0].to_string().into());
    connections(2).await;

    let mut client = HealthClient::new(channel.clone());
    let mut failed = 0;
    for call in 0..300 {
        if call == 100 {
            servers[1].process.kill().unwrap();
            servers[1].process.wait().unwrap();
        }
        let answer = client.check(HealthCheckRequest::default()).await;
        failed += usize::from(answer.is_err());
    }
    // The one that was told over a connection that had just broken.
    assert!(failed <= 1, "{failed} calls failed");
    assert_eq!(
        fate(channel.balancer(), &ports[1].to_string()),
        Fate::Ejected
    );
}

async fn three() -> (Vec<Server>, ServiceDiscoveryClient) {
    let memory = MemoryProvider::new();
    let mut servers = Vec::new();
    for port in free_ports::<3>() {
        servers.push(Server::start(port).await);
        let builder = Instance::builder(auth(), "127.0.0.1".parse().unwrap(), port);
        let builder = builder.id(port.to_string()).path_prefix("/v2");
        memory.insert(builder.build().unwrap());
    }
    let client = ServiceDiscoveryClient::builder()
        .provider(memory)
        .strategy_named("p2c_peak_ewma");
    (servers, client.build().unwrap())
}

/// What came of 500 requests a second for some seconds.
#[derive(Default)]
struct Load {
    failed: AtomicUsize,
    by_instance: Mutex<BTreeMap<String, usize>>,
    /// When they were sent and how long they took.
    latencies: Mutex<Vec<(Duration, Duration)>>,
}

impl Load {
    async fn run<F>(seconds: u64, send: impl Fn() -> F) -> Self
    where
        F: Future<Output = Result<String, String>> + Send + 'static,
    {
        let load = Arc::new(Self::default());
        let (mut requests, mut ticks) = (JoinSet::new(), interval(Duration::from_millis(2)));
        let begun = Instant::now();
        for _ in 0..seconds * 500 {
            ticks.tick().await;
            let (request, load) = (send(), Arc::clone(&load));
            requests.spawn(async move {
                let started = Instant::now();
                match request.await {
                    Ok(instance) => {
                        *load
                            .by_instance
                            .lock()
                            .unwrap()
                            .entry(instance)
                            .or_default() += 1
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

    fn failed(&self) -> usize {
        self.failed.load(Ordering::Relaxed)
    }

    fn p99_after(&self, start: Duration) -> Duration {
        let latencies = self.latencies.lock().unwrap();
        let late = latencies.iter().filter(|(sent, _)| *sent > start);
        let mut late: Vec<_> = late.map(|(_, latency)| *latency).collect();
        late.sort();
        late[late.len() * 99 / 100]
    }
}

fn fate(balancer: &Balancer, id: &str) -> Fate {
    let explanation = balancer.explain();
    explanation
        .instances
        .iter()
        .find(|i| i.id.as_str() == id)
        .unwrap()
        .fate
}

#[tokio::test(flavor = "multi_thread")]
async fn through_tower_no_request_is_lost_with_a_killed_instance_and_a_stalled_one_is_avoided() {
    let (mut servers, discovery) = three().await;
    let http = legacy::Client::builder(TokioExecutor::new()).build_http::<Full<bytes::Bytes>>();
    let balancer = discovery.balancer("auth").unwrap();
    let client = BalanceLayer::retrying(balancer).layer(http);
    let killer = tokio::spawn(async move {
        sleep(Duration::from_secs(1)).await;
        servers[0].process.kill().unwrap();
        sleep(Duration::from_secs(1)).await;
        servers[1].signal(rustix::process::Signal::STOP);
        sleep(Duration::from_secs(2)).await;
        servers[1].signal(rustix::process::Signal::CONT);
        servers
    });
    let load = Load::run(5, || {
        let client = client.clone();
        async move {
            let request = http::Request::get("http://auth/who").body(Full::default());
            let answer = client.oneshot(request.unwrap()).await;
            let answer = answer.map_err(|error| format!("{error}: {:?}", error.source()))?;
            assert!(answer.status().is_success());
            Ok(answer.status().to_string())
        }
    })
    .await;
    let servers = killer.await.unwrap();
    assert_eq!(load.failed(), 0);
    // The stall is over: nothing of it is left a moment later.
    let p99 = load.p99_after(Duration::from_millis(4_300));
    assert!(p99 < Duration::from_millis(300), "{p99:?}");
    assert_eq!(fate(client.balancer(), &servers[0].id()), Fate::Ejected);
    assert!(client.balancer().counters().ejected_consecutive_failures > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn through_reqwest_no_request_is_lost_with_a_killed_instance() {
    let (mut servers, discovery) = three().await;
    let client = Client::new(discovery.clone(), plain_reqwest());
    let url = "http://auth/who";
    let killed = servers[0].id();
    let killer = tokio::spawn(async move {
        sleep(Duration::from_secs(1)).await;
        servers[0].process.kill().unwrap();
        servers
    });
    let load = Load::run(3, || {
        let request = client.get(url);
        async move {
            let answer = request.send().await.map_err(|error| error.to_string())?;
            answer.text().await.map_err(|error| error.to_string())
        }
    })
    .await;
    drop(killer.await.unwrap());
    assert_eq!(load.failed(), 0);
    let used = load.by_instance.lock().unwrap().len();
    assert_eq!(used, 3);
    let explanation = discovery.explain("auth").await.unwrap();
    let dead = explanation
        .instances
        .iter()
        .find(|i| i.id.as_str() == killed)
        .unwrap();
    assert_eq!(dead.fate, Fate::Ejected);
    let other = Client::new(discovery, plain_reqwest());
    let error = other.get("http://nobody/who").send().await.unwrap_err();
    assert!(error.to_string().contains("unknown"), "{error}");
}

fn plain_reqwest() -> reqwest::Client {
    let provider = rustls::crypto::ring::default_provider();
    let tls = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let builder = reqwest::Client::builder().tls_backend_preconfigured(tls);
    builder.no_proxy().build().unwrap()
}

#[tokio::test]
async fn a_discover_stream_tells_of_each_change_without_a_request() {
    use futures_util::StreamExt;
    use tower::discover::Change;

    let memory = MemoryProvider::new();
    let instance = |id: &str, weight| {
        let builder = Instance::builder(auth(), "10.0.0.1".parse().unwrap(), 80).id(id);
        builder
            .weight(waypost::Weight::new(weight))
            .build()
            .unwrap()
    };
    memory.replace(&auth(), [instance("a", 1), instance("b", 1)]);
    let directory = waypost::Directory::new(Arc::new(memory.clone()));
    let mut changes = Box::pin(changes(directory.subscribe(&auth())));
    let mut next = async || match changes.next().await.unwrap().unwrap() {
        Change::Insert(id, instance) => format!("{id}={}", instance.weight()),
        Change::Remove(id) => format!("-{id}"),
    };
    assert_eq!((next().await, next().await), ("a=1".into(), "b=1".into()));
    memory.replace(&auth(), [instance("b", 5), instance("c", 1)]);
    assert_eq!(next().await, "-a");
    assert_eq!((next().await, next().await), ("b=5".into(), "c=1".into()));
}
