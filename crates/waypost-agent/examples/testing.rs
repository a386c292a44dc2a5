//! How to test code that uses service discovery: with a registry in the test, injected faults and a
//! paused clock.
//!
//! ```text
//! cargo run -p waypost-agent --example testing
//! ```

use std::error::Error;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use waypost_agent::Agent;

/// The code under test: counts the passing instances of a service.
async fn count_passing(consul: &str, service: &str) -> Result<usize, reqwest::Error> {
    let url = format!("{consul}/v1/health/service/{service}?passing");
    let response = reqwest::get(url).await?.error_for_status()?;
    Ok(response.json::<Vec<serde_json::Value>>().await?.len())
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    // The HTTP client of this example needs a crypto provider.
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
    assert_eq!(count_passing(&agent.url(), "web").await?, 1);

    // Without a report the check fails after 10 s. The paused clock advances at once.
    let before = Instant::now();
    sleep(Duration::from_secs(11)).await;
    assert_eq!(count_passing(&agent.url(), "web").await?, 0);
    println!(
        "the instance is critical after {:?} on the paused clock",
        before.elapsed()
    );

    agent.faults().fail(true);
    assert!(count_passing(&agent.url(), "web").await.is_err());
    agent.faults().heal();
    assert!(count_passing(&agent.url(), "web").await.is_ok());
    println!("requests fail with the injected fault, and succeed after it is turned off");
    agent.shutdown().await;
    Ok(())
}
