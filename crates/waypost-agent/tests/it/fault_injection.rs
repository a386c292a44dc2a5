//! The effect of injected faults on clients.

use std::time::Duration;

use tokio::time::{Instant, timeout};
use waypost_agent::Agent;

use crate::raw_http::Request;

const SOON: Duration = Duration::from_secs(30);

fn services() -> Request {
    Request::new("GET", "/v1/catalog/services", "")
}

async fn register(agent: &Agent) {
    let request = Request::new("PUT", "/v1/agent/service/register", r#"{"Name":"web"}"#);
    request.send(agent.http_addr()).await.unwrap();
}

#[tokio::test]
async fn failures_refusals_and_delays_can_be_turned_off() {
    let agent = Agent::start().await.unwrap();
    let address = agent.http_addr();
    let faults = agent.faults();
    faults.fail(true);
    let response = services().send(address).await.unwrap();
    assert_eq!(response.status, "500 Internal Server Error");
    faults.refuse(true);
    assert!(services().send(address).await.is_err());
    faults.heal();
    faults.delay(Some(Duration::from_millis(200)));
    let start = Instant::now();
    assert_eq!(services().send(address).await.unwrap().status, "200 OK");
    assert!(start.elapsed() >= Duration::from_millis(200));
}

#[tokio::test]
async fn empty_responses_keep_their_json_type() {
    let agent = Agent::start().await.unwrap();
    register(&agent).await;
    agent.faults().empty(true);
    let names = services().send(agent.http_addr()).await.unwrap();
    assert_eq!(names.text(), "{}");
    let health = Request::new("GET", "/v1/health/service/web", "");
    let instances = health.send(agent.http_addr()).await.unwrap();
    assert_eq!(instances.text(), "[]");
    agent.faults().heal();
    let instances = health.send(agent.http_addr()).await.unwrap();
    assert!(instances.text().contains("web"));
}

#[tokio::test]
async fn a_reset_index_goes_back_and_then_increases() {
    let agent = Agent::start().await.unwrap();
    let index = async || {
        let response = services().send(agent.http_addr()).await.unwrap();
        response
            .header("X-Consul-Index")
            .unwrap()
            .parse::<u64>()
            .unwrap()
    };
    register(&agent).await;
    let before = index().await;
    agent.faults().reset_index();
    let reset = index().await;
    assert!(reset < before, "{reset} after {before}");
    let other = r#"{"Name":"other"}"#;
    let request = Request::new("PUT", "/v1/agent/service/register", other);
    request.send(agent.http_addr()).await.unwrap();
    assert!(index().await > reset);
}

#[tokio::test]
async fn dropping_watchers_closes_their_connections() {
    let agent = Agent::start().await.unwrap();
    let address = agent.http_addr();
    let target = "/v1/catalog/services?index=1000&wait=10m";
    let watcher = tokio::spawn(async move { Request::new("GET", target, "").send(address).await });
    let dropped = async {
        while !watcher.is_finished() {
            agent.faults().drop_watchers();
            tokio::task::yield_now().await;
        }
    };
    timeout(SOON, dropped).await.unwrap();
    assert!(watcher.await.unwrap().is_err());
}
