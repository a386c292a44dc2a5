//! How to test code that uses discovery: a registry in the test, faults on demand, and a clock that
//! stands still until everybody waits.
//!
//! ```text
//! cargo run -p waypost-agent --example testing
//! ```

use std::error::Error;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use waypost_agent::Agent;

/// What is under test: it looks up the passing instances of a service, and gives up at any error.
async fn passing(consul: &str, service: &str) -> Result<usize, reqwest::Error> {
    let url = format!("{consul}/v1/health/service/{service}?passing");
    let answer = reqwest::get(url).await?.error_for_status()?;
    Ok(answer.json::<Vec<serde_json::Value>>().await?.len())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // The example's client wants to be told who does its cryptography.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let start = std::time::SystemTime::now();
    let agent = Agent::builder().seed(7).start().await?;
    println!("started in {:?}", start.elapsed()?);

    // In a test this is `#[tokio::test(start_paused = true)]`.
    tokio::time::pause();
    let definition = r#"{"Name":"web","Check":{"TTL":"10s","Status":"passing",
        "DeregisterCriticalServiceAfter":"1m"}}"#;
    reqwest::Client::new()
        .put(format!("{}/v1/agent/service/register", agent.url()))
        .body(definition)
        .send()
        .await?
        .error_for_status()?;
    assert_eq!(passing(&agent.url(), "web").await?, 1);

    // Nobody reports, so the check fails after 10 s. Nobody has to wait for that.
    let before = Instant::now();
    sleep(Duration::from_secs(11)).await;
    assert_eq!(passing(&agent.url(), "web").await?, 0);
    println!(
        "{:?} of the agent's time later, the instance is gone",
        before.elapsed()
    );

    agent.faults().fail(true);
    assert!(passing(&agent.url(), "web").await.is_err());
    agent.faults().heal();
    assert!(passing(&agent.url(), "web").await.is_ok());
    println!("it fails when it is told to, and heals");
    agent.shutdown().await;
    Ok(())
}
