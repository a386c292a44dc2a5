//! The page of a registry: what it shows without a stack or a gateway.

use waypost_agent::Agent;
use waypost_testkit::browser::Page;

/// Sends a PUT request to an agent.
async fn put(agent: &Agent, path: &str, body: &str) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let url = format!("{}{path}", agent.url());
    let response = client.put(url).body(body.to_owned()).send().await.unwrap();
    assert!(
        response.status().is_success(),
        "{path}: {}",
        response.text().await.unwrap()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_instance_appears_with_its_cause() {
    let agent = Agent::start().await.unwrap();
    Page::test(&format!("{}/ui/", agent.url()), async |page| {
        page.wait_for(".hello", "No service has been added yet").await;
        put(&agent, "/v1/agent/service/register", r#"{"Name":"orders","ID":"orders-1","Port":4100,"Tags":["v1","api"],"Check":{"TTL":"60s","Status":"passing"}}"#).await;
        put(&agent, "/v1/agent/service/register", r#"{"Name":"orders","ID":"orders-2","Port":4101,"Check":{"TTL":"60s","Status":"passing"}}"#).await;
        page.wait_for("tr[data-name='orders']", "Ready").await;
        put(&agent, "/v1/agent/check/fail/service:orders-2?note=database+timed+out", "").await;
        page.wait_for(".need", "orders-2 fails its check").await;
        page.wait_for(".need", "database timed out").await;
        page.click("tr[data-name='orders'] td.state").await;
        page.wait_for(".side .why", "database timed out").await;
        page.click(".tabs a:nth-child(2)").await;
        page.wait_for(".transitions", "critical").await;
    })
    .await;
}
