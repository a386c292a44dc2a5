//! Serving gRPC with tonic: registration and graceful shutdown.

use std::sync::Arc;
use std::time::Duration;

use ::axum::Router;
use ::axum::routing::any;
use http_body_util::BodyExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;
use tonic::body::Body;
use tonic::service::Routes;
use tonic::transport::{Channel, Endpoint, Server};
use tower::ServiceExt;
use waypost::integration::tonic_server::serve;
use waypost::provider::MemoryProvider;
use waypost::{HealthChecks, ServiceDiscoveryClient, ServiceRegistration};

const DEADLINE: Duration = Duration::from_secs(60);

/// The body of a response over HTTP/2; the test needs no generated client.
async fn call(channel: Channel, path: &str) -> String {
    let request = http::Request::post(path).body(Body::empty()).unwrap();
    let response = channel.oneshot(request).await.unwrap();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8_lossy(&body).into_owned()
}

#[tokio::test]
async fn a_grpc_server_deregisters_first_and_finishes_calls_in_flight() {
    let memory = MemoryProvider::new();
    let client = ServiceDiscoveryClient::new(Arc::new(memory.clone()));
    let (started, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = {
        let (started, release) = (Arc::clone(&started), Arc::clone(&release));
        async move || {
            started.notify_one();
            release.notified().await;
            "slow but complete"
        }
    };
    let routes = Router::new()
        .route("/slow", any(slow))
        .route("/quick", any(async || "quick"));
    let router = Server::builder().add_routes(Routes::from(routes));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let health = HealthChecks::new("greeter");
    let serving = serve(listener, router)
        .health(health.clone())
        .register(
            ServiceRegistration::new("greeter", 0)
                .unwrap()
                .version("1.0.0"),
        )
        .provider(Arc::new(memory))
        .propagation(Duration::from_secs(2))
        .shutdown_when(async {
            let _ = stopped.await;
        });
    let served = tokio::spawn(serving.run());
    timeout(DEADLINE, client.wait_for("greeter"))
        .await
        .unwrap()
        .unwrap();
    let instance = client.discover_service("greeter").await.unwrap().remove(0);
    assert_eq!(instance.version(), Some("1.0.0"));
    let channel = Endpoint::from_shared(instance.url().to_owned()).unwrap();
    let channel = channel.connect().await.unwrap();

    let slow = tokio::spawn(call(channel.clone(), "/slow"));
    timeout(DEADLINE, started.notified()).await.unwrap();
    stop.send(()).unwrap();
    // It is deregistered and not ready, but still serves clients that have not seen this yet.
    let mut subscription = client.directory().subscribe(&"greeter".parse().unwrap());
    let gone = async { while subscription.changed().await.usable().is_ok() {} };
    timeout(DEADLINE, gone).await.unwrap();
    assert!(!health.is_ready());
    assert_eq!(call(channel, "/quick").await, "quick");

    // Then it accepts no new connections, and the call in flight completes.
    let address = instance.authority();
    let closed = async { while TcpStream::connect(&address).await.is_ok() {} };
    timeout(DEADLINE, closed).await.unwrap();
    release.notify_one();
    assert_eq!(
        timeout(DEADLINE, slow).await.unwrap().unwrap(),
        "slow but complete"
    );
    timeout(DEADLINE, served).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn a_call_that_does_not_end_is_cut_off_after_the_drain_time() {
    let started = Arc::new(Notify::new());
    let hanging = {
        let started = Arc::clone(&started);
        async move || {
            started.notify_one();
            std::future::pending::<&'static str>().await
        }
    };
    let router =
        Server::builder().add_routes(Routes::from(Router::new().route("/hang", any(hanging))));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = serve(listener, router)
        .drain(Duration::from_millis(10))
        .shutdown_when(async {
            let _ = stopped.await;
        });
    let served = tokio::spawn(serving.run());
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let channel = channel.connect().await.unwrap();
    let hanging = tokio::spawn(call(channel, "/hang"));
    timeout(DEADLINE, started.notified()).await.unwrap();
    stop.send(()).unwrap();
    timeout(DEADLINE, served).await.unwrap().unwrap().unwrap();
    hanging.abort();
}
