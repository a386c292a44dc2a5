//! Tests with a paused clock, as users of the agent write them.

use std::time::Duration;

use tokio::time::{Instant, sleep};
use waypost_agent::Agent;

use crate::raw_http::Request;

async fn put(agent: &Agent, target: &str, body: &str) {
    let response = Request::new("PUT", target, body)
        .send(agent.http_addr())
        .await;
    assert_eq!(response.unwrap().status, "200 OK", "{target}");
}

async fn get(agent: &Agent, target: &str) -> String {
    let response = Request::new("GET", target, "")
        .send(agent.http_addr())
        .await;
    response.unwrap().text()
}

const REGISTER: &str = "/v1/agent/service/register";

#[tokio::test(start_paused = true)]
async fn a_service_that_stops_reporting_becomes_critical_and_is_then_removed() {
    let agent = Agent::start().await.unwrap();
    let body = r#"{"Name":"web","Check":{"TTL":"10s","Status":"passing",
        "DeregisterCriticalServiceAfter":"1m"}}"#;
    put(&agent, REGISTER, body).await;
    let passing = "/v1/health/service/web?passing";
    assert!(get(&agent, passing).await.contains("service:web"));
    sleep(Duration::from_secs(11)).await;
    assert_eq!(get(&agent, passing).await, "[]");
    assert!(
        get(&agent, "/v1/health/service/web")
            .await
            .contains("TTL expired")
    );
    sleep(Duration::from_secs(120)).await;
    assert_eq!(get(&agent, "/v1/health/service/web").await, "[]");
}

#[tokio::test(start_paused = true)]
async fn a_blocking_query_waits_for_its_whole_time() {
    let agent = Agent::start().await.unwrap();
    let start = Instant::now();
    // Less than the timeout of the test client.
    get(&agent, "/v1/health/service/web?index=1000&wait=20s").await;
    let waited = start.elapsed();
    assert!(waited >= Duration::from_secs(20), "{waited:?}");
    assert!(waited <= Duration::from_secs(22), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn catalog_changes_to_the_node_of_the_agent_are_undone_within_a_minute() {
    let agent = Agent::builder().node_name("n1").start().await.unwrap();
    put(&agent, REGISTER, r#"{"Name":"mine","Tags":["v1"]}"#).await;
    put(
        &agent,
        REGISTER,
        r#"{"Name":"open","Tags":["v1"],"EnableTagOverride":true}"#,
    )
    .await;
    let register = "/v1/catalog/register";
    let foreign = r#"{"Node":"n1","SkipNodeUpdate":true,"Service":{"Service":"foreign"}}"#;
    put(&agent, register, foreign).await;
    for name in ["mine", "open"] {
        let body = format!(
            r#"{{"Node":"n1","SkipNodeUpdate":true,"Service":{{"Service":"{name}",
                "Tags":["edited"],"EnableTagOverride":{}}}}}"#,
            name == "open"
        );
        put(&agent, register, &body).await;
    }
    let services = get(&agent, "/v1/catalog/services").await;
    let edited = r#"{"consul":[],"foreign":[],"mine":["edited"],"open":["edited"]}"#;
    assert_eq!(services, edited);
    sleep(Duration::from_secs(65)).await;
    let services = get(&agent, "/v1/catalog/services").await;
    assert_eq!(services, r#"{"consul":[],"mine":["v1"],"open":["edited"]}"#);
    assert!(
        get(&agent, "/v1/agent/service/open")
            .await
            .contains("edited")
    );

    put(&agent, "/v1/catalog/deregister", r#"{"Node":"n1"}"#).await;
    assert_eq!(get(&agent, "/v1/catalog/services").await, "{}");
    sleep(Duration::from_secs(65)).await;
    let services = get(&agent, "/v1/catalog/services").await;
    assert_eq!(services, r#"{"consul":[],"mine":["v1"],"open":["edited"]}"#);
    assert!(
        get(&agent, "/v1/health/node/n1")
            .await
            .contains("serfHealth")
    );
}

/// Consul waits between half and one and a half of its `check_update_interval` of 5 minutes.
#[tokio::test(start_paused = true)]
async fn a_new_output_is_in_the_catalog_after_the_update_interval() {
    let agent = Agent::start().await.unwrap();
    put(&agent, REGISTER, r#"{"Name":"web","Check":{"TTL":"1h"}}"#).await;
    let update = r#"{"Status":"critical","Output":"disk full"}"#;
    put(&agent, "/v1/agent/check/update/service:web", update).await;
    assert!(get(&agent, "/v1/agent/checks").await.contains("disk full"));
    let health = "/v1/health/service/web";
    assert!(!get(&agent, health).await.contains("disk full"));
    sleep(Duration::from_secs(2 * 60)).await;
    assert!(!get(&agent, health).await.contains("disk full"));
    sleep(Duration::from_secs(60)).await;
    assert!(get(&agent, health).await.contains("disk full"));
}
