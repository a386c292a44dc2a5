//! Retries: which requests are retried, and how often, as counted by the servers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::{Method, Request};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Instant;
use tower::{Layer, ServiceExt};
use waypost::balance::{RoundRobin, Selection};
use waypost::integration::reqwest::Client;
use waypost::integration::tower::BalanceLayer;
use waypost::outlier::OutlierDetection;
use waypost::provider::MemoryProvider;
use waypost::{Instance, ServiceDiscoveryClient};
use waypost_testkit::free_ports;

use super::{plain_reqwest, selection};
use crate::scripted::auth;

/// The behaviour of a server after it has read a request.
#[derive(Clone, Copy, PartialEq)]
enum Behaviour {
    CloseConnection,
    TruncateBody,
    Hang,
    Respond,
    /// Responds 429 with `Retry-After`.
    Overloaded,
}

/// Two instances with the same behaviour, which count the requests that they receive.
struct Servers {
    discovery: ServiceDiscoveryClient,
    memory: MemoryProvider,
    ports: Vec<u16>,
    received: Arc<AtomicUsize>,
}

impl Servers {
    async fn start(behaviour: Behaviour) -> Self {
        let (memory, received) = (MemoryProvider::new(), Arc::new(AtomicUsize::new(0)));
        let mut ports = Vec::new();
        for _ in 0..2 {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            memory.insert(instance(port));
            ports.push(port);
            let received = Arc::clone(&received);
            tokio::spawn(async move {
                while let Ok((connection, _)) = listener.accept().await {
                    tokio::spawn(serve(connection, behaviour, Arc::clone(&received)));
                }
            });
        }
        let discovery = ServiceDiscoveryClient::builder()
            .provider(memory.clone())
            .strategy(|| RoundRobin::starting_at(0))
            .outlier_detection(OutlierDetection::off());
        Self {
            discovery: discovery.build().unwrap(),
            memory,
            ports,
            received,
        }
    }

    fn instances(&self) -> Vec<Instance> {
        self.ports.iter().map(|port| instance(*port)).collect()
    }

    /// The number of requests received since the last call.
    fn received(&self) -> usize {
        self.received.swap(0, Ordering::SeqCst)
    }

    /// Sends a request through Tower. Returns the body or the error.
    async fn tower(&self, method: Method) -> Result<String, String> {
        let http = legacy::Client::builder(TokioExecutor::new()).build_http();
        let balancer = self.discovery.balancer("auth").unwrap();
        let client = BalanceLayer::retrying(balancer).layer(http);
        let request = Request::builder().method(method).uri("http://auth/");
        let request = request.body(Full::<bytes::Bytes>::from("order")).unwrap();
        let answer = client.oneshot(request).await.map_err(|e| e.to_string())?;
        let body = answer.into_body().collect().await;
        let body = body.map_err(|error| error.to_string())?.to_bytes();
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    fn client(&self) -> Client {
        Client::new(self.discovery.clone(), plain_reqwest())
    }

    /// The same through reqwest.
    async fn reqwest(&self, method: Method) -> Result<String, String> {
        let request = self.client().request(method, "http://auth/").body("order");
        let answer = request.send().await.map_err(|error| error.to_string())?;
        answer.text().await.map_err(|error| error.to_string())
    }
}

fn instance(port: u16) -> Instance {
    let builder = Instance::builder(auth(), "127.0.0.1".parse().unwrap(), port);
    builder.id(port.to_string()).build().unwrap()
}

async fn serve(mut connection: TcpStream, behaviour: Behaviour, received: Arc<AtomicUsize>) {
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.ends_with(b"order") {
        match connection.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(length) => request.extend_from_slice(&buffer[..length]),
        }
    }
    received.fetch_add(1, Ordering::SeqCst);
    let answer: &[u8] = match behaviour {
        Behaviour::CloseConnection => return,
        Behaviour::Hang => return std::future::pending().await,
        Behaviour::TruncateBody => b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
        Behaviour::Overloaded => {
            b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 60\r\ncontent-length: 0\r\n\r\n"
        }
        Behaviour::Respond => {
            b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\ndone"
        }
    };
    let _ = connection.write_all(answer).await;
}

/// The server may have processed a request even if no response arrived. The clock is paused, so that
/// timeouts pass only when nothing else can happen.
#[tokio::test(start_paused = true)]
async fn a_post_that_was_sent_is_never_retried() {
    let servers = Servers::start(Behaviour::CloseConnection).await;
    assert!(servers.tower(Method::POST).await.is_err());
    assert_eq!(servers.received(), 1, "through Tower");
    assert!(servers.reqwest(Method::POST).await.is_err());
    assert_eq!(servers.received(), 1, "through reqwest");
    let servers = Servers::start(Behaviour::Hang).await;
    let client = servers.client().attempt_timeout(Duration::from_millis(500));
    let error = client.post("http://auth/").body("order").send().await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("within 500ms"), "{error}");
    assert_eq!(servers.received(), 1, "with a timeout");
    // PUT is idempotent.
    let put = client.put("http://auth/").body("order").send().await;
    assert!(put.is_err());
    assert_eq!(servers.received(), 3);
}

#[tokio::test]
async fn idempotent_requests_are_tried_three_times() {
    let servers = Servers::start(Behaviour::CloseConnection).await;
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        assert!(servers.tower(method.clone()).await.is_err());
        assert_eq!(servers.received(), 3, "{method} through Tower");
        assert!(servers.reqwest(method.clone()).await.is_err());
        assert_eq!(servers.received(), 3, "{method} through reqwest");
    }
}

#[tokio::test]
async fn a_post_that_was_never_sent_is_retried_at_another_instance() {
    let servers = Servers::start(Behaviour::Respond).await;
    // Two instances that refuse connections, and two that respond.
    for port in free_ports::<2>() {
        servers.memory.insert(instance(port));
    }
    for _ in 0..8 {
        assert_eq!(servers.tower(Method::POST).await.unwrap(), "done");
        assert_eq!(servers.reqwest(Method::POST).await.unwrap(), "done");
    }
    assert_eq!(servers.received(), 16);
}

#[tokio::test]
async fn no_retry_after_the_response_has_started() {
    let servers = Servers::start(Behaviour::TruncateBody).await;
    assert!(servers.tower(Method::GET).await.is_err());
    assert_eq!(servers.received(), 1, "through Tower");
    assert!(servers.reqwest(Method::GET).await.is_err());
    assert_eq!(servers.received(), 1, "through reqwest");
}

/// The response itself goes to the caller.
#[tokio::test]
async fn an_instance_that_sends_retry_after_gets_no_requests() {
    let servers = Servers::start(Behaviour::Overloaded).await;
    let (idle, busy) = (
        Servers::start(Behaviour::Respond).await,
        servers.memory.clone(),
    );
    for instance in idle.instances() {
        busy.insert(instance);
    }
    let client = ServiceDiscoveryClient::builder().provider(busy);
    let discovery = client.build().unwrap();
    let client = Client::new(discovery.clone(), plain_reqwest());
    for _ in 0..40 {
        let answer = client.get("http://auth/").body("order").send().await;
        assert!(answer.is_ok());
        // Lets the balancer's task run, which applies ejections.
        tokio::task::yield_now().await;
    }
    // Two of four may be ejected at a time.
    let explanation = discovery.explain("auth").await.unwrap();
    assert_eq!(explanation.counters.ejected_overloaded, 2);
    assert!(
        servers.received() <= 4,
        "each got one request, or two before the ejection was applied"
    );
    assert!(idle.received() >= 36);
}

#[tokio::test]
async fn kept_alive_connections_do_not_pin_a_client_to_old_instances() {
    let servers = Servers::start(Behaviour::Respond).await;
    let client = servers.client();
    let send = async || {
        let request = client.get("http://auth/").body("order");
        assert!(request.send().await.unwrap().status().is_success());
    };
    for _ in 0..10 {
        send().await;
    }
    let more = Servers::start(Behaviour::Respond).await;
    for instance in more.instances() {
        servers.memory.insert(instance);
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while more.received.load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < deadline, "new instances get no request");
        send().await;
    }
    more.received();
    servers.received();
    for _ in 0..40 {
        send().await;
    }
    assert_eq!((servers.received(), more.received()), (20, 20));
}

#[tokio::test]
async fn named_ports_and_schemes_resolve_alike_with_every_provider() {
    let servers = Servers::start(Behaviour::Respond).await;
    let admin = servers.instances()[0].port();
    // Nothing listens on the main port.
    let [main] = free_ports::<1>();
    let builder = Instance::builder(auth(), "127.0.0.1".parse().unwrap(), main);
    let memory = MemoryProvider::new();
    memory.insert(builder.named_port("admin", admin).build().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("services.yaml");
    let service =
        format!("auth: {{url: \"http://127.0.0.1:{main}\", ports: {{admin: {admin}}}}}\n");
    std::fs::write(&file, service).unwrap();
    let providers: [Arc<dyn waypost::provider::Provider>; 2] = [
        Arc::new(memory),
        Arc::new(waypost::provider::StaticProvider::open(&file).unwrap()),
    ];
    for provider in providers {
        let discovery = ServiceDiscoveryClient::new(provider);
        let client = Client::new(discovery, plain_reqwest());
        for address in ["https+http://_admin.auth/", "http://_admin.auth/"] {
            let answer = client.get(address).body("order").send().await.unwrap();
            assert_eq!(answer.text().await.unwrap(), "done", "{address}");
        }
        let none = client.get("https://_admin.auth/").send().await.unwrap_err();
        assert!(
            none.to_string().contains("no instance has this port"),
            "{none}"
        );
    }
}

/// If every request fails, retries add a fifth to the load instead of tripling it.
#[tokio::test]
async fn the_retry_budget_is_a_fifth_of_the_requests_plus_ten() {
    const REQUESTS: usize = 300;
    const FIFTH_MORE: usize = REQUESTS + REQUESTS / 5;
    // The budget has a reserve of ten retries per ten seconds.
    let most = |began: Instant| FIFTH_MORE + 10 + 10 * (began.elapsed().as_secs() / 10) as usize;
    let servers = Servers::start(Behaviour::CloseConnection).await;
    let (client, began) = (servers.client(), Instant::now());
    for _ in 0..REQUESTS {
        let request = client.get("http://auth/").body("order");
        assert!(request.send().await.is_err());
    }
    let received = servers.received();
    assert!(
        (FIFTH_MORE - 10..=most(began)).contains(&received),
        "{received} through reqwest"
    );

    let http = legacy::Client::builder(TokioExecutor::new()).build_http();
    let balancer = servers.discovery.balancer("auth").unwrap();
    let client = BalanceLayer::retrying(balancer).layer(http);
    let began = Instant::now();
    for _ in 0..REQUESTS {
        let request = Request::get("http://auth/").body(Full::<bytes::Bytes>::from("order"));
        assert!(client.clone().oneshot(request.unwrap()).await.is_err());
    }
    let received = servers.received();
    assert!(
        (FIFTH_MORE - 10..=most(began)).contains(&received),
        "{received} through Tower"
    );
}

#[tokio::test(start_paused = true)]
async fn a_request_that_ran_out_of_time_is_not_sent_again() {
    let servers = Servers::start(Behaviour::Hang).await;
    let http = super::reqwest_builder().timeout(Duration::from_millis(300));
    let client = Client::new(servers.discovery.clone(), http.build().unwrap());
    let error = client.get("http://auth/").body("order").send().await;
    assert!(error.is_err());
    assert_eq!(servers.received(), 1);
}

#[tokio::test]
async fn an_instance_that_refuses_connections_is_ejected() {
    let servers = Servers::start(Behaviour::Respond).await;
    let [unused] = free_ports();
    servers.memory.insert(instance(unused));
    let discovery = ServiceDiscoveryClient::builder()
        .provider(servers.memory.clone())
        .strategy(|| RoundRobin::starting_at(0))
        .build()
        .unwrap();
    let client = Client::new(discovery.clone(), plain_reqwest());
    let balancer = discovery.balancer("auth").unwrap();
    balancer.ready().await.unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while selection(&balancer, &unused.to_string()) != Selection::Ejected {
        assert!(Instant::now() < deadline, "it isn't ejected");
        // A retry goes to another instance.
        let _ = client.post("http://auth/").body("order").send().await;
    }
}
