//! A hyper client whose URIs name services, without changes to the code that uses it:
//! `SERVICE_AUTH_URL=http://localhost:5001 cargo run --example hyper_client --features hyper-util -- http://auth/health`

use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use waypost::ServiceDiscoveryClient;
use waypost::integration::hyper_util::ServiceConnector;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let uri = std::env::args().nth(1);
    let uri = uri.unwrap_or_else(|| "http://ai-models/health".into());

    let discovery = ServiceDiscoveryClient::builder().build()?;
    let connector = ServiceConnector::new(discovery, HttpConnector::new());
    let client = Client::builder(TokioExecutor::new()).build::<_, Empty<bytes::Bytes>>(connector);

    let response = client.get(uri.parse()?).await?;
    println!("{}", response.status());
    let body = response.into_body().collect().await?.to_bytes();
    println!("{}", String::from_utf8_lossy(&body));
    Ok(())
}
