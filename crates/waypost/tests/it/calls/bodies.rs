//! A request is in flight until its response body has ended, even if the body is separated from the
//! response. A request that never reached an instance goes to another one.

use std::time::Duration;

use axum::body::{Body, Bytes};
use futures_util::StreamExt;
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tower::{Layer, ServiceExt};
use waypost::balance::RoundRobin;
use waypost::integration::reqwest::Client;
use waypost::integration::tower::BalanceLayer;
use waypost::provider::MemoryProvider;
use waypost::{Balancer, Instance, ServiceDiscoveryClient};

use super::plain_reqwest;
use crate::scripted::auth;

/// A server that sends one chunk, and ends the body only when the test signals it.
async fn streaming_server(end: watch::Receiver<bool>) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let stream = move || {
        let mut end = end.clone();
        async move {
            let first = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from("first"))]);
            let rest = futures_util::stream::once(async move {
                let _ = end.wait_for(|end| *end).await;
                Ok(Bytes::from("last"))
            });
            Body::from_stream(first.chain(rest))
        }
    };
    let app = axum::Router::new().route("/", axum::routing::get(stream));
    tokio::spawn(async move { axum::serve(listener, app).await });
    port
}

fn discovery(instances: impl IntoIterator<Item = Instance>) -> ServiceDiscoveryClient {
    let memory = MemoryProvider::new();
    instances
        .into_iter()
        .for_each(|instance| memory.insert(instance));
    let builder = ServiceDiscoveryClient::builder().provider(memory);
    let builder = builder.strategy(|| RoundRobin::starting_at(0));
    builder.build().unwrap()
}

fn at(port: u16) -> Instance {
    let builder = Instance::builder(auth(), "127.0.0.1".parse().unwrap(), port);
    builder.id(port.to_string()).build().unwrap()
}

fn in_flight(balancer: &Balancer) -> usize {
    balancer.explain().instances[0].in_flight
}

#[tokio::test]
async fn a_response_of_reqwest_is_in_flight_until_its_body_ends() {
    let (end, ended) = watch::channel(false);
    let discovery = discovery([at(streaming_server(ended).await)]);
    let balancer = discovery.balancer("auth").unwrap();
    let client = Client::new(discovery, plain_reqwest());

    let response = client.get("http://auth/").send().await.unwrap();
    assert_eq!(response.url().path(), "/");
    assert!(response.url().as_str().starts_with("http://127.0.0.1:"));
    let mut stream = response.bytes_stream();
    assert_eq!(stream.next().await.unwrap().unwrap(), "first");
    assert_eq!(in_flight(&balancer), 1);
    end.send_replace(true);
    assert_eq!(stream.next().await.unwrap().unwrap(), "last");
    assert!(stream.next().await.is_none());
    assert_eq!(in_flight(&balancer), 0);

    // Read as a whole, and dropped halfway.
    let response = client.get("http://auth/").send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "firstlast");
    assert_eq!(in_flight(&balancer), 0);
    end.send_replace(false);
    let response = client.get("http://auth/").send().await.unwrap();
    let text = tokio::spawn(response.text());
    assert_eq!(in_flight(&balancer), 1);
    text.abort();
    assert!(text.await.is_err());
    assert_eq!(in_flight(&balancer), 0);
}

#[tokio::test]
async fn a_response_through_tower_is_in_flight_until_its_body_ends() {
    let (end, ended) = watch::channel(false);
    let discovery = discovery([at(streaming_server(ended).await)]);
    let balancer = discovery.balancer("auth").unwrap();
    let http = legacy::Client::builder(TokioExecutor::new()).build_http();
    let client = BalanceLayer::new(discovery.balancer("auth").unwrap()).layer(http);
    let request = Request::get("http://auth/").body(Full::<Bytes>::default());
    let mut body = client.oneshot(request.unwrap()).await.unwrap().into_body();
    assert_eq!(in_flight(&balancer), 1);
    assert_eq!(
        body.frame().await.unwrap().unwrap().into_data().unwrap(),
        "first"
    );
    end.send_replace(true);
    while body.frame().await.is_some() {}
    assert_eq!(in_flight(&balancer), 0);
}

/// A port that doesn't answer a SYN, because its queue of pending connections is full.
async fn black_hole() -> (u16, Vec<std::net::TcpStream>, std::net::TcpListener) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let address: std::net::SocketAddr = "127.0.0.1:0".parse().unwrap();
    socket.bind(&address.into()).unwrap();
    socket.listen(0).unwrap();
    let listener: std::net::TcpListener = socket.into();
    let address = listener.local_addr().unwrap();
    let mut pending = Vec::new();
    // A connection that isn't accepted at once finds the queue full.
    while let Ok(connection) =
        std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200))
    {
        pending.push(connection);
    }
    (address.port(), pending, listener)
}

#[tokio::test]
async fn a_post_that_was_never_sent_goes_to_another_instance() {
    let good = post_server().await;
    let unresolved = Instance::builder(auth(), "nowhere.invalid".parse().unwrap(), 80);
    let (hole, _pending, _listener) = black_hole().await;
    let [refusing] = waypost_testkit::free_ports();
    for bad in [
        unresolved.id("bad").build().unwrap(),
        at(hole),
        at(refusing),
    ] {
        let name = bad.authority();
        let discovery = discovery([at(good), bad]);
        let http = super::reqwest_builder()
            .connect_timeout(Duration::from_millis(300))
            .resolve_to_addrs("nowhere.invalid", &[])
            .build()
            .unwrap();
        let client = Client::new(discovery, http);
        for number in 0..8 {
            let request = client.post("http://auth/").body("order");
            let response = request.send().await;
            assert!(response.is_ok(), "{name}, {number}: {response:?}");
        }
    }
}

async fn post_server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let app = axum::Router::new().route("/", axum::routing::post(async || "done"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    port
}
