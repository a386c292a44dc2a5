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
    assert!(TcpStream::connect(gateway.address).await.is_err());
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
        TestGateway::start_with(|config| config.deregistration_delay = Duration::from_secs(2))
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
