//! Calls services by name with reqwest:
//! `cargo run --example reqwest_client --features reqwest -- http://ai-models/api/models`

use std::error::Error;

use waypost::ServiceDiscoveryClient;
use waypost::integration::reqwest::Client;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1);
    let address = address.unwrap_or_else(|| "http://ai-models/health".into());

    let discovery = ServiceDiscoveryClient::builder()
        .strategy_named("least_connections")
        .build()?;
    // A program that uses HTTPS enables one of reqwest's TLS features instead.
    let http = reqwest::Client::builder()
        .no_proxy()
        .tls_backend_preconfigured(no_roots()?);
    let client = Client::new(discovery, http.build()?);

    for _ in 0..3 {
        let response = client.get(&address).send().await?;
        println!("{} from {}", response.status(), response.url());
        println!("{}", response.text().await?);
    }
    Ok(())
}

/// A TLS configuration that trusts no certificate, for a program that only uses plain HTTP.
fn no_roots() -> Result<rustls::ClientConfig, rustls::Error> {
    let provider = rustls::crypto::ring::default_provider();
    let builder = rustls::ClientConfig::builder_with_provider(provider.into());
    let builder = builder.with_safe_default_protocol_versions()?;
    let roots = rustls::RootCertStore::empty();
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
