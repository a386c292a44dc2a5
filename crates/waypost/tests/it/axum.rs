//! Serving an axum application: registration, health, graceful shutdown.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ::axum::Router;
use ::axum::routing::get;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep, timeout};
use waypost::integration::axum::{ServeError, serve};
use waypost::provider::MemoryProvider;
use waypost::{HealthChecks, ServiceDiscoveryClient, ServiceRegistration};

const DEADLINE: Duration = Duration::from_secs(60);

struct App {
    client: ServiceDiscoveryClient,
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<Result<(), ServeError>>,
    database: Arc<AtomicBool>,
    slow: Arc<SlowHandler>,
}

/// A request handler that completes when the test allows it.
#[derive(Default)]
struct SlowHandler {
    started: Notify,
    release: Notify,
}

impl App {
    async fn start() -> Self {
        let memory = MemoryProvider::new();
        let client = ServiceDiscoveryClient::new(Arc::new(memory.clone()));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let database = Arc::new(AtomicBool::new(true));
        let (stop, stopped) = oneshot::channel::<()>();
        let slow = Arc::<SlowHandler>::default();
        let handler = get({
            let slow = Arc::clone(&slow);
            async move || {
                slow.started.notify_one();
                slow.release.notified().await;
                "slow but complete"
            }
        });
        let app = Router::new()
            .route("/", get(async || "hello"))
            .route("/slow", handler);
        let check = Arc::clone(&database);
        let health = HealthChecks::new("web").check("database", move || {
            let check = Arc::clone(&check);
            async move { check.load(Ordering::SeqCst) }
        });
        let serving = serve(listener, app)
            .health(health)
            .register(ServiceRegistration::new("web", 0).unwrap().version("1.0.0"))
            .provider(Arc::new(memory))
            .propagation(Duration::from_secs(2))
            .shutdown_when(async {
                let _ = stopped.await;
            });
        let served = tokio::spawn(serving.run());
        timeout(DEADLINE, client.wait_for("web"))
            .await
            .unwrap()
            .unwrap();
        Self {
            client,
            stop,
            served,
            database,
            slow,
        }
    }

    /// The status line and the body of a response from an instance that is looked up by name.
    async fn get(&self, path: &str) -> (String, String) {
        let pick = self.client.pick("web").await.unwrap();
        get_from(&pick.authority(), path).await
    }
}

async fn get_from(authority: &str, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(authority).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut reply = String::new();
    stream.read_to_string(&mut reply).await.unwrap();
    let (head, body) = reply.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[tokio::test]
async fn a_served_application_is_registered_and_reports_its_health() {
    let app = App::start().await;
    assert_eq!(
        app.get("/").await,
        ("HTTP/1.1 200 OK".into(), "hello".into())
    );
    let instance = app.client.discover_service("web").await.unwrap();
    assert_eq!(instance[0].version(), Some("1.0.0"));

    let (status, body) = app.get("/health").await;
    assert_eq!(status, "HTTP/1.1 200 OK");
    let report: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(report["status"], "passing");
    assert_eq!(report["checks"][0]["name"], "database");

    app.database.store(false, Ordering::SeqCst);
    let (status, body) = app.get("/readyz").await;
    assert_eq!(status, "HTTP/1.1 503 Service Unavailable");
    assert!(body.contains("the check returned false"), "{body}");
    // Liveness doesn't depend on the database.
    assert_eq!(app.get("/livez").await.0, "HTTP/1.1 200 OK");
}

/// The clock is paused, so that the time for clients to notice passes only when nothing else can happen.
#[tokio::test(start_paused = true)]
async fn shutdown_deregisters_first_and_finishes_requests_in_flight() {
    let app = App::start().await;
    let authority = app.client.pick("web").await.unwrap().authority();
    let slow = tokio::spawn({
        let authority = authority.clone();
        async move { get_from(&authority, "/slow").await }
    });
    timeout(DEADLINE, app.slow.started.notified())
        .await
        .unwrap();
    app.stop.send(()).unwrap();

    // It is deregistered, but still serves clients that have not seen this yet.
    let mut subscription = app.client.directory().subscribe(&"web".parse().unwrap());
    while subscription.changed().await.usable().is_ok() {}
    assert_eq!(get_from(&authority, "/").await.1, "hello");
    assert_eq!(
        get_from(&authority, "/health").await.0,
        "HTTP/1.1 503 Service Unavailable"
    );

    // Then it accepts no new connections, and the request in flight completes.
    let closed = async {
        while TcpStream::connect(&authority).await.is_ok() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(DEADLINE, closed).await.unwrap();
    app.slow.release.notify_one();
    assert_eq!(slow.await.unwrap().1, "slow but complete");
    timeout(DEADLINE, app.served)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
}

/// Replaces three instances one after the other while clients send requests.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_load_fails_no_request() {
    let agent = waypost_agent::Agent::start().await.unwrap();
    let provider: Arc<dyn waypost::provider::Provider> =
        Arc::new(waypost::provider::consul::ConsulProvider::new(&agent.url()).unwrap());
    let start = async |generation: usize| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let app = Router::new().route("/", get(async move || generation.to_string()));
        let serving = serve(listener, app)
            .register(ServiceRegistration::new("web", 0).unwrap())
            .provider(Arc::clone(&provider))
            // Enough for the client to notice on a busy machine.
            .propagation(Duration::from_secs(5))
            .shutdown_when(async {
                let _ = stopped.await;
            });
        (stop, tokio::spawn(serving.run()))
    };
    let client = ServiceDiscoveryClient::new(Arc::clone(&provider));
    let mut subscription = client.directory().subscribe(&"web".parse().unwrap());
    let mut running = Vec::new();
    for _ in 0..3 {
        running.push(start(1).await);
    }
    while subscription.changed().await.ready().len() < 3 {}

    let clients: Vec<_> = (0..4)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut requests = 0;
                loop {
                    let authority = client.pick("web").await.unwrap().authority();
                    let (status, generation) = get_from(&authority, "/").await;
                    assert_eq!(status, "HTTP/1.1 200 OK");
                    requests += 1;
                    sleep(Duration::from_millis(5)).await;
                    if generation == "3" {
                        return requests;
                    }
                }
            })
        })
        .collect();
    // The second generation replaces the first. The clients stop at the first response of the third.
    let mut replaced_by = Vec::new();
    for (stop, served) in running {
        let next = start(2).await;
        while subscription.changed().await.ready().len() < 4 {}
        stop.send(()).unwrap();
        served.await.unwrap().unwrap();
        replaced_by.push(next);
    }
    replaced_by.push(start(3).await);
    let mut requests = 0;
    for client in clients {
        let sent = timeout(DEADLINE, client).await.unwrap();
        requests += sent.expect("no request fails");
    }
    assert!(requests > 300, "{requests}");
}
