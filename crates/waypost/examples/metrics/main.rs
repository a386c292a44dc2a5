//! Prints the library's metrics in Prometheus' text format, after some look-ups of a service:
//! `SERVICE_AUTH_URL=http://localhost:5001 cargo run --example metrics --features metrics -- auth`
//!
//! `recorder.rs` shows a complete recorder for the facade. In production, install a recorder from a
//! crate, such as `metrics-exporter-prometheus`, before the first look-up:
//! `PrometheusBuilder::new().install()?`.

mod recorder;

use waypost::ServiceDiscoveryClient;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let name = std::env::args().nth(1).unwrap_or_else(|| "auth".into());
    let recorder = recorder::TextRecorder::default();
    // Before the first look-up: metrics of services that are used earlier are not recorded.
    metrics::set_global_recorder(recorder.clone())?;

    let client = ServiceDiscoveryClient::builder().build()?;
    for _ in 0..3 {
        match client.pick(name.as_str()).await {
            Ok(pick) => pick.lease().succeeded(),
            Err(error) => eprintln!("{error}"),
        }
    }
    print!("{}", recorder.render());
    Ok(())
}
