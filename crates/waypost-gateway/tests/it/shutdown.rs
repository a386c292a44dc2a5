//! How a gateway ends.

use std::time::Duration;

use http::{Response, StatusCode};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::support::{Origin, RawClient, TestGateway, body, soon};

#[tokio::test]
async fn a_request_under_way_is_finished_and_then_nobody_is_let_in() {
    let mut gateway = TestGateway::start().await;
    let (asked, was_asked) = oneshot::channel();
    let (answer, may_answer) = oneshot::channel::<()>();
    let once = std::sync::Mutex::new(Some((asked, may_answer)));
    let origin = Origin::start(move |_| {
        let (asked, may_answer) = once.lock().unwrap().take().unwrap();
        async move {
            asked.send(()).unwrap();
            may_answer.await.unwrap();
            Response::new(body("finished"))
        }
    })
    .await;
    gateway.add("auth", "a", origin.address).await;
    let mut client = RawClient::connect(gateway.address).await;
    let mut idle = RawClient::connect(gateway.address).await;
    client.send("GET /auth/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
    soon("the request", was_asked).await.unwrap();

    gateway.tell_to_stop();
    assert_eq!(
        idle.read_to_end().await,
        "",
        "an idle connection is closed at once"
    );
    assert!(TcpStream::connect(gateway.address).await.is_err());
    answer.send(()).unwrap();
    let answer = client.read_to_end().await;
    assert!(
        answer.starts_with("HTTP/1.1 200") && answer.ends_with("finished"),
        "{answer}"
    );
    gateway.stopped().await;
}

#[tokio::test]
async fn a_request_that_does_not_end_is_cut_off_in_the_end() {
    let mut gateway =
        TestGateway::start_with(|config| config.drain_timeout = Duration::from_millis(100)).await;
    let origin = Origin::start(|_| std::future::pending::<Response<_>>()).await;
    gateway.add("auth", "a", origin.address).await;
    let mut client = RawClient::connect(gateway.address).await;
    client.send("GET /auth/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
    crate::support::until("the request", || origin.requests() == 1).await;
    gateway.tell_to_stop();
    gateway.stopped().await;
    assert_eq!(client.read_to_end().await, "");
}

#[tokio::test]
async fn it_leaves_the_registry_first_and_serves_until_that_has_spread() {
    let mut gateway =
        TestGateway::start_with(|config| config.spread = Duration::from_secs(2)).await;
    gateway
        .add("auth", "a", Origin::says("hello").await.address)
        .await;
    let mut itself = gateway
        .discovery
        .directory()
        .subscribe(&"api-gateway".parse().unwrap());
    soon("the registration", async {
        while itself.changed().await.usable().is_err() {}
    })
    .await;
    gateway.tell_to_stop();
    soon("the deregistration", async {
        while itself.changed().await.usable().is_ok() {}
    })
    .await;
    assert_eq!(gateway.get("/auth/").await.status, StatusCode::OK);
    let health = gateway.get("/health").await;
    assert_eq!(health.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(health.json()["ready"], false);
    assert_eq!(gateway.get("/livez").await.status, StatusCode::OK);
    gateway.stopped().await;
}
