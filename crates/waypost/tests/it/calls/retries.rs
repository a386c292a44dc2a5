//! What is sent again, what never is, and how often at most: told by servers that count.

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
use waypost::balance::RoundRobin;
use waypost::integration::reqwest::Client;
use waypost::integration::tower::BalanceLayer;
use waypost::outlier::OutlierDetection;
use waypost::provider::MemoryProvider;
use waypost::{Instance, ServiceDiscoveryClient};
use waypost_testkit::free_ports;

use super::plain_reqwest;
use crate::scripted::auth;

/// What a server does once it has read a request.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    HangUp,
    BreakOffTheBody,
    Hang,
    Answer,
    /// 429, and wants to be left alone.
    Busy,
}

/// Two instances of one manner, which count the requests that reach them.
struct World {
    discovery: ServiceDiscoveryClient,
    memory: MemoryProvider,
    ports: Vec<u16>,
    reached: Arc<AtomicUsize>,
}

impl World {
    async fn of(manner: Manner) -> Self {
        let (memory, reached) = (MemoryProvider::new(), Arc::new(AtomicUsize::new(0)));
        let mut ports = Vec::new();
        for _ in 0..2 {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            memory.insert(instance(port));
            ports.push(port);
            let reached = Arc::clone(&reached);
            tokio::spawn(async move {
                while let Ok((connection, _)) = listener.accept().await {
                    tokio::spawn(serve(connection, manner, Arc::clone(&reached)));
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
            reached,
        }
    }

    fn instances(&self) -> Vec<Instance> {
        self.ports.iter().map(|port| instance(*port)).collect()
    }

    fn reached(&self) -> usize {
        self.reached.swap(0, Ordering::SeqCst)
    }

    /// Sends through Tower and gives the body, or what went wrong.
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

async fn serve(mut connection: TcpStream, manner: Manner, reached: Arc<AtomicUsize>) {
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.ends_with(b"order") {
        match connection.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(length) => request.extend_from_slice(&buffer[..length]),
        }
    }
    reached.fetch_add(1, Ordering::SeqCst);
    let answer: &[u8] = match manner {
        Manner::HangUp => return,
        Manner::Hang => return std::future::pending().await,
        Manner::BreakOffTheBody => b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf",
        Manner::Busy => {
            b"HTTP/1.1 429 Too Many Requests\r\nretry-after: 60\r\ncontent-length: 0\r\n\r\n"
        }
        Manner::Answer => b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 4\r\n\r\ndone",
    };
    let _ = connection.write_all(answer).await;
}

/// An order that was sent may have been carried out, whatever became of the answer.
#[tokio::test]
async fn a_post_that_was_sent_is_never_retried() {
    let world = World::of(Manner::HangUp).await;
    assert!(world.tower(Method::POST).await.is_err());
    assert_eq!(world.reached(), 1, "through Tower");
    assert!(world.reqwest(Method::POST).await.is_err());
    assert_eq!(world.reached(), 1, "through reqwest");
    let world = World::of(Manner::Hang).await;
    let client = world.client().attempt_timeout(Duration::from_millis(500));
    let error = client.post("http://auth/").body("order").send().await;
    let error = error.unwrap_err().to_string();
    assert!(error.contains("within 500ms"), "{error}");
    assert_eq!(world.reached(), 1, "one that hangs");
    // The same as PUT, which may be repeated, is tried at both and once more.
    let put = client.put("http://auth/").body("order").send().await;
    assert!(put.is_err());
    assert_eq!(world.reached(), 3);
}

#[tokio::test]
async fn idempotent_requests_are_tried_three_times() {
    let world = World::of(Manner::HangUp).await;
    for method in [Method::GET, Method::PUT, Method::DELETE] {
        assert!(world.tower(method.clone()).await.is_err());
        assert_eq!(world.reached(), 3, "{method} through Tower");
        assert!(world.reqwest(method.clone()).await.is_err());
        assert_eq!(world.reached(), 3, "{method} through reqwest");
    }
}

#[tokio::test]
async fn a_post_that_was_never_sent_is_retried_at_another_instance() {
    let world = World::of(Manner::Answer).await;
    // Two that refuse connections stand before one that answers.
    for port in free_ports::<2>() {
        world.memory.insert(instance(port));
    }
    for _ in 0..8 {
        assert_eq!(world.tower(Method::POST).await.unwrap(), "done");
        assert_eq!(world.reqwest(Method::POST).await.unwrap(), "done");
    }
    assert_eq!(world.reached(), 16);
}

#[tokio::test]
async fn no_retry_after_the_response_has_started() {
    let world = World::of(Manner::BreakOffTheBody).await;
    assert!(world.tower(Method::GET).await.is_err());
    assert_eq!(world.reached(), 1, "through Tower");
    assert!(world.reqwest(Method::GET).await.is_err());
    assert_eq!(world.reached(), 1, "through reqwest");
}

/// One that asks for a pause gets it; its answer is the caller's.
#[tokio::test]
async fn an_instance_that_sends_retry_after_gets_no_requests() {
    let world = World::of(Manner::Busy).await;
    let (idle, busy) = (World::of(Manner::Answer).await, world.memory.clone());
    for instance in idle.instances() {
        busy.insert(instance);
    }
    let client = ServiceDiscoveryClient::builder().provider(busy);
    let discovery = client.build().unwrap();
    let client = Client::new(discovery.clone(), plain_reqwest());
    for _ in 0..40 {
        let answer = client.get("http://auth/").body("order").send().await;
        assert!(answer.is_ok());
        // Those who pick hear of it from a task.
        tokio::task::yield_now().await;
    }
    // Two of four may be ejected at a time.
    let explanation = discovery.explain("auth").await.unwrap();
    assert_eq!(explanation.counters.ejected_overloaded, 2);
    assert!(
        world.reached() <= 4,
        "each once, or once more while the news spreads"
    );
    assert!(idle.reached() >= 36);
}

/// Connections are kept, but an instance is chosen for each request.
#[tokio::test]
async fn kept_alive_connections_do_not_pin_a_client_to_old_instances() {
    let world = World::of(Manner::Answer).await;
    let client = world.client();
    let send = async || {
        let request = client.get("http://auth/").body("order");
        assert!(request.send().await.unwrap().status().is_success());
    };
    for _ in 0..10 {
        send().await;
    }
    let more = World::of(Manner::Answer).await;
    for instance in more.instances() {
        world.memory.insert(instance);
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    while more.reached.load(Ordering::SeqCst) == 0 {
        assert!(Instant::now() < deadline, "the new ones get nothing");
        send().await;
    }
    more.reached();
    world.reached();
    for _ in 0..40 {
        send().await;
    }
    assert_eq!((world.reached(), more.reached()), (20, 20));
}

/// The same address means the same with every provider.
#[tokio::test]
async fn named_ports_and_schemes_resolve_alike_with_every_provider() {
    let world = World::of(Manner::Answer).await;
    let admin = world.instances()[0].port();
    // The main port answers nobody.
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

/// When everything fails, a service in trouble gets a fifth more, not three times as much.
#[tokio::test]
async fn the_retry_budget_is_a_fifth_of_the_requests_plus_ten() {
    const REQUESTS: usize = 300;
    const FIFTH_MORE: usize = REQUESTS + REQUESTS / 5;
    // Ten more in each ten seconds that it takes.
    let most = |began: Instant| FIFTH_MORE + 10 + 10 * (began.elapsed().as_secs() / 10) as usize;
    let world = World::of(Manner::HangUp).await;
    let (client, began) = (world.client(), Instant::now());
    for _ in 0..REQUESTS {
        let request = client.get("http://auth/").body("order");
        assert!(request.send().await.is_err());
    }
    let reached = world.reached();
    assert!(
        (FIFTH_MORE - 10..=most(began)).contains(&reached),
        "{reached} through reqwest"
    );

    let http = legacy::Client::builder(TokioExecutor::new()).build_http();
    let balancer = world.discovery.balancer("auth").unwrap();
    let client = BalanceLayer::retrying(balancer).layer(http);
    let began = Instant::now();
    for _ in 0..REQUESTS {
        let request = Request::get("http://auth/").body(Full::<bytes::Bytes>::from("order"));
        assert!(client.clone().oneshot(request.unwrap()).await.is_err());
    }
    let reached = world.reached();
    assert!(
        (FIFTH_MORE - 10..=most(began)).contains(&reached),
        "{reached} through Tower"
    );
}
