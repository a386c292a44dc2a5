//! A hyper client whose requests go to the instances of a service:
//! `cargo run --example tower_client --features tower -- ai-models /api/models`
//!
//! The layer works with any Tower service for HTTP requests, and can be combined with other layers.

use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tower::{BoxError, Layer, ServiceExt};
use waypost::ServiceDiscoveryClient;
use waypost::integration::tower::BalanceLayer;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), BoxError> {
    let mut arguments = std::env::args().skip(1);
    let name = arguments.next().unwrap_or_else(|| "ai-models".into());
    let path = arguments.next().unwrap_or_else(|| "/health".into());

    let discovery = ServiceDiscoveryClient::builder()
        .strategy_named("p2c_peak_ewma")
        .build()?;
    let layer = BalanceLayer::retrying(discovery.balancer(name.as_str())?);
    let client = Client::builder(TokioExecutor::new()).build_http::<Full<bytes::Bytes>>();
    let client = layer.layer(client);

    for _ in 0..3 {
        let request = Request::get(path.as_str()).body(Full::default())?;
        let response = client.clone().oneshot(request).await?;
        println!("{}", response.status());
        let body = response.into_body().collect().await?.to_bytes();
        println!("{}", String::from_utf8_lossy(&body));
    }
    // Whether each instance may be picked, and why.
    for instance in client.balancer().explain().instances {
        println!(
            "{} {:?} {:?}",
            instance.id, instance.selection, instance.latency_seconds
        );
    }
    Ok(())
}
