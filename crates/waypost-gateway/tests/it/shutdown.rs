//! Graceful shutdown.

use std::time::Duration;

use http::{Response, StatusCode};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::support::{Origin, RawClient, TestGateway, body, with_deadline};

#[tokio::test]
async fn an_open_request_completes_and_new_connections_are_refused() {
    let mut gateway = TestGateway::start().await;
    let (received, was_received) = oneshot::channel();
    let (respond, may_respond) = oneshot::channel::<()>();
    let once = std::sync::Mutex::new(Some((received, may_respond)));
    let origin = Origin::start(move |_| {
        let (received, may_respond) = once.lock().unwrap().take().unwrap();
        async move {
            received.send(()).unwrap();
            may_respond.await.unwrap();
            Response::new(body("finished"))
        }
    })
    .await;
    gateway.add("auth", "a", origin.address).await;
    let mut client = RawClient::connect(gateway.address).await;
    let mut idle = RawClient::connect(gateway.address).await;
    client.send("GET /auth/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
    with_deadline("the request", was_received).await.unwrap();

    gateway.begin_shutdown();
    assert_eq!(
        idle.read_to_end().await,
        "",
        "an idle connection is closed at once"
    );
    with_deadline("connections to be refused", async {
        while TcpStream::connect(gateway.address).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
    respond.send(()).unwrap();
    let response = client.read_to_end().await;
    assert!(
        response.starts_with("HTTP/1.1 200") && response.ends_with("finished"),
        "{response}"
    );
    gateway.stopped().await;
}

#[tokio::test]
async fn an_open_request_is_aborted_after_the_drain_timeout() {
    let mut gateway =
        TestGateway::start_with(|config| config.drain_timeout = Duration::from_millis(100)).await;
    let origin = Origin::start(|_| std::future::pending::<Response<_>>()).await;
    gateway.add("auth", "a", origin.address).await;
    let mut client = RawClient::connect(gateway.address).await;
    client.send("GET /auth/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
    crate::support::wait_until("the request", || origin.requests() == 1).await;
    gateway.begin_shutdown();
    gateway.stopped().await;
    assert_eq!(client.read_to_end().await, "");
}

#[tokio::test]
async fn it_deregisters_first_and_keeps_serving_for_the_deregistration_delay() {
    let mut gateway =
        TestGateway::start_with(|config| config.deregistration_delay = Duration::from_secs(8))
            .await;
    gateway
        .add("auth", "a", Origin::text("hello").await.address)
        .await;
    let mut registered = gateway
        .discovery
        .directory()
        .subscribe(&"api-gateway".parse().unwrap());
    with_deadline("the registration", async {
        while registered.changed().await.usable().is_err() {}
    })
    .await;
    gateway.begin_shutdown();
    with_deadline("the deregistration", async {
        while registered.changed().await.usable().is_ok() {}
    })
    .await;
    assert_eq!(gateway.get("/auth/").await.status, StatusCode::OK);
    let health = gateway.get("/health").await;
    assert_eq!(health.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(health.json()["ready"], false);
    assert_eq!(gateway.get("/livez").await.status, StatusCode::OK);
    gateway.stopped().await;
}

/// A listener on an address that another one may have at the same time.
fn shared_listener(address: std::net::SocketAddr) -> tokio::net::TcpListener {
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_reuseport(true).expect("an option");
    socket.bind(address).expect("the address");
    socket.listen(1024).expect("a listener")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_a_gateway_is_replaced_by_another_on_its_port() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

    let origin = Origin::text("hello").await;
    let memory = waypost::provider::MemoryProvider::new();
    let instance = crate::support::instance("auth", "a", origin.address);
    memory.insert(instance.build().unwrap());
    let start = |listener: tokio::net::TcpListener| {
        let client = waypost::ServiceDiscoveryClient::new(Arc::new(memory.clone()));
        let mut config = waypost_gateway::Config::default();
        config.worker_threads = 1;
        config.register = false;
        config.reuse_port = true;
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = waypost_gateway::Gateway::new(client, config).serve(listener, async {
            let _ = stopped.await;
        });
        (stop, tokio::spawn(serving))
    };
    let listener = shared_listener("127.0.0.1:0".parse().unwrap());
    let address = listener.local_addr().unwrap();
    let (mut stop_current, mut current) = start(listener);
    let (stop, done, failed) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicUsize::new(0)),
        Arc::new(AtomicUsize::new(0)),
    );
    let clients: Vec<_> = (0..8)
        .map(|_| {
            let (stop, done, failed) = (Arc::clone(&stop), Arc::clone(&done), Arc::clone(&failed));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    // A connection for each request: each could be the one that is lost.
                    let mut client = RawClient::connect(address).await;
                    client
                        .send("GET /auth/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                        .await;
                    let answer = client.read_to_end().await;
                    let is_good = answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello");
                    failed.fetch_add(usize::from(!is_good), Ordering::Relaxed);
                    done.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let load = async |more: usize| {
        let target = done.load(Ordering::Relaxed) + more;
        let reached = || done.load(Ordering::Relaxed) > target;
        crate::support::wait_until("requests", reached).await;
    };
    load(300).await;
    for _ in 0..3 {
        let (stop_next, next) = start(shared_listener(address));
        load(300).await;
        stop_current.send(()).unwrap();
        with_deadline("the end of the replaced gateway", current)
            .await
            .unwrap()
            .unwrap();
        load(300).await;
        (stop_current, current) = (stop_next, next);
    }
    stop.store(true, Ordering::Relaxed);
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(failed.load(Ordering::Relaxed), 0, "of {done:?}");
    stop_current.send(()).unwrap();
    with_deadline("the end of the last", current)
        .await
        .unwrap()
        .unwrap();
}
