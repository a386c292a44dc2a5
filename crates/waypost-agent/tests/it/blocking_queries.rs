//! Blocking queries: which changes wake which queries.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use waypost_agent::Agent;

use crate::raw_http::{Request, Response};

const SOON: Duration = Duration::from_secs(50);
/// How long a query that must not wake is waited for.
const A_WHILE: Duration = Duration::from_millis(300);

async fn put(agent: &Agent, target: &str, body: &str) {
    let request = Request::new("PUT", target, body);
    let response = request.send(agent.http_addr()).await.unwrap();
    assert_eq!(response.status, "200 OK", "{target}: {}", response.text());
}

async fn get(address: SocketAddr, target: &str) -> Response {
    Request::new("GET", target, "").send(address).await.unwrap()
}

/// Starts a blocking query with the current index.
async fn watch(agent: &Agent, path: &str) -> JoinHandle<Response> {
    let address = agent.http_addr();
    let now = get(address, path).await;
    let index = now.header("X-Consul-Index").unwrap();
    let separator = if path.contains('?') { '&' } else { '?' };
    let target = format!("{path}{separator}index={index}&wait=10m");
    tokio::spawn(async move { get(address, &target).await })
}

const REGISTER: &str = "/v1/agent/service/register";
const WEB: &str = r#"{"Name":"web","Check":{"TTL":"1h","Status":"passing"}}"#;

#[tokio::test]
async fn a_status_change_wakes_only_the_watchers_of_its_service() {
    let agent = Agent::start().await.unwrap();
    put(&agent, REGISTER, WEB).await;
    put(&agent, REGISTER, r#"{"Name":"other"}"#).await;
    let health = watch(&agent, "/v1/health/service/web").await;
    let state = watch(&agent, "/v1/health/state/any").await;
    let mut other = watch(&agent, "/v1/health/service/other").await;
    let mut names = watch(&agent, "/v1/catalog/services").await;
    put(&agent, "/v1/agent/check/fail/service:web?note=gone", "").await;
    for woken in [health, state] {
        let response = timeout(SOON, woken).await.unwrap().unwrap();
        assert!(response.text().contains("gone"), "{}", response.text());
    }
    for waiting in [&mut other, &mut names] {
        assert!(
            timeout(A_WHILE, waiting).await.is_err(),
            "woken without a change"
        );
    }
}

#[tokio::test]
async fn a_query_with_a_filter_waits_for_a_change() {
    let agent = Agent::start().await.unwrap();
    put(&agent, REGISTER, WEB).await;
    let path = "/v1/health/service/web?filter=Service.Service%20==%20web";
    let mut woken = watch(&agent, path).await;
    let early = timeout(A_WHILE, &mut woken).await;
    assert!(early.is_err(), "woken without a change");
    put(&agent, "/v1/agent/check/fail/service:web?note=gone", "").await;
    let response = timeout(SOON, woken).await.unwrap().unwrap();
    assert!(response.text().contains("gone"), "{}", response.text());
}

#[tokio::test]
async fn a_query_for_an_unknown_service_wakes_when_it_is_registered() {
    let agent = Agent::start().await.unwrap();
    let waiting = watch(&agent, "/v1/health/service/web").await;
    put(&agent, REGISTER, WEB).await;
    let response = timeout(SOON, waiting).await.unwrap().unwrap();
    assert!(
        response.text().contains("service:web"),
        "{}",
        response.text()
    );
}

#[tokio::test]
async fn removing_the_last_instance_wakes_watchers() {
    let agent = Agent::start().await.unwrap();
    put(&agent, REGISTER, WEB).await;
    let waiting = watch(&agent, "/v1/health/service/web").await;
    put(&agent, "/v1/agent/service/deregister/web", "").await;
    let response = timeout(SOON, waiting).await.unwrap().unwrap();
    assert_eq!(response.text(), "[]");
}

#[tokio::test]
async fn repeating_a_registration_wakes_no_watcher() {
    let agent = Agent::start().await.unwrap();
    put(&agent, REGISTER, WEB).await;
    let mut waiting = watch(&agent, "/v1/health/service/web").await;
    put(&agent, REGISTER, WEB).await;
    put(&agent, "/v1/agent/check/pass/service:web", "").await;
    assert!(timeout(A_WHILE, &mut waiting).await.is_err());
}

#[tokio::test]
async fn a_change_wakes_all_of_a_thousand_watchers() {
    let agent = Agent::start().await.unwrap();
    put(&agent, REGISTER, WEB).await;
    let mut waiting = Vec::new();
    for _ in 0..1000 {
        waiting.push(watch(&agent, "/v1/health/service/web").await);
    }
    put(&agent, "/v1/agent/check/warn/service:web", "").await;
    for watcher in waiting {
        let response = timeout(SOON, watcher).await.unwrap().unwrap();
        assert!(response.text().contains("warning"));
    }
}

#[tokio::test]
async fn a_query_for_events_wakes_when_one_is_fired() {
    let agent = Agent::start().await.unwrap();
    put(&agent, "/v1/event/fire/deploy", "first").await;
    let mut watcher = watch(&agent, "/v1/event/list").await;
    assert!(
        timeout(A_WHILE, &mut watcher).await.is_err(),
        "woken without an event"
    );
    put(&agent, "/v1/event/fire/restart", "").await;
    let response = timeout(SOON, watcher).await.unwrap().unwrap();
    assert!(response.text().contains("restart"), "{}", response.text());
}

#[tokio::test]
async fn a_query_without_a_change_ends_with_the_same_response() {
    let agent = Agent::start().await.unwrap();
    put(&agent, REGISTER, WEB).await;
    let first = get(agent.http_addr(), "/v1/health/service/web").await;
    let index = first.header("X-Consul-Index").unwrap();
    let target = format!("/v1/health/service/web?index={index}&wait=100ms");
    let second = get(agent.http_addr(), &target).await;
    assert_eq!(first.body, second.body);
    assert_eq!(Some(index), second.header("X-Consul-Index"));
}

#[tokio::test]
async fn the_monitor_streams_registrations() {
    let agent = Agent::start().await.unwrap();
    let mut stream = TcpStream::connect(agent.http_addr()).await.unwrap();
    let request = "GET /v1/agent/monitor?loglevel=info HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut received = Vec::new();
    let mut chunk = [0; 1024];
    let read = async {
        while !String::from_utf8_lossy(&received).contains("Synced service: service=web") {
            let length = stream.read(&mut chunk).await.unwrap();
            assert_ne!(length, 0, "the stream ended");
            if received.is_empty() {
                put(&agent, REGISTER, WEB).await;
            }
            received.extend_from_slice(&chunk[..length]);
        }
    };
    timeout(SOON, read).await.unwrap();
    assert!(String::from_utf8_lossy(&received).contains("[INFO] "));
}
