//! Any reqwest client with URLs that name services:
//! `SERVICE_AUTH_URL=http://localhost:5001 cargo run --example reqwest_resolver --features reqwest -- http://auth/health`
//!
//! `reqwest_client.rs` shows the integration that also balances and retries each request.

use waypost::ServiceDiscoveryClient;
use waypost::integration::reqwest::ServiceResolver;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1);
    let url = url.unwrap_or_else(|| "http://ai-models/health".into());

    let discovery = ServiceDiscoveryClient::builder().build()?;
    // A program that uses HTTPS enables one of reqwest's TLS features instead.
    let http = reqwest::Client::builder()
        .dns_resolver(ServiceResolver::new(discovery))
        .no_proxy()
        .tls_backend_preconfigured(no_roots()?)
        .build()?;

    let response = http.get(url).send().await?;
    println!("{}\n{}", response.status(), response.text().await?);
    Ok(())
}

fn no_roots() -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = rustls::crypto::ring::default_provider();
    let builder = rustls::ClientConfig::builder_with_provider(provider.into());
    let builder = builder.with_safe_default_protocol_versions()?;
    let roots = rustls::RootCertStore::empty();
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
