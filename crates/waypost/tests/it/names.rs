//! Names of services for clients that don't use Waypost: hyper-util's with a connector, reqwest's
//! with a resolver.

use ::axum::Router;
use ::axum::routing::get;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use waypost::balance::RoundRobin;
use waypost::integration::hyper_util::ServiceConnector;
use waypost::integration::reqwest::ServiceResolver;
use waypost::outlier::OutlierDetection;
use waypost::provider::MemoryProvider;
use waypost::{Instance, ServiceDiscoveryClient};
use waypost_testkit::free_ports;

use crate::scripted::auth;

/// A server that responds with its port.
async fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let app = Router::new().route("/who", get(async move || port.to_string()));
    tokio::spawn(::axum::serve(listener, app).into_future());
    port
}

fn discovery(instances: &[(&str, &str, u16)]) -> ServiceDiscoveryClient {
    let memory = MemoryProvider::new();
    for (service, host, port) in instances {
        let host = host.parse().unwrap();
        let builder = Instance::builder(service.parse().unwrap(), host, *port);
        memory.insert(builder.id(port.to_string()).build().unwrap());
    }
    let builder = ServiceDiscoveryClient::builder().provider(memory);
    let builder = builder.strategy(|| RoundRobin::starting_at(0));
    builder
        .outlier_detection(OutlierDetection::off())
        .build()
        .unwrap()
}

type HyperClient = legacy::Client<ServiceConnector<HttpConnector>, Empty<bytes::Bytes>>;

/// A client that uses each connection once.
fn hyper_client(discovery: &ServiceDiscoveryClient) -> HyperClient {
    let connector = ServiceConnector::new(discovery.clone(), HttpConnector::new());
    let mut builder = legacy::Client::builder(TokioExecutor::new());
    builder.pool_max_idle_per_host(0).build(connector)
}

async fn get_text(client: &HyperClient, uri: &str) -> Result<String, String> {
    use std::error::Error;
    let response = client.get(uri.parse().unwrap()).await;
    let response =
        response.map_err(|error| error.source().map(ToString::to_string).unwrap_or_default())?;
    let body = response.into_body().collect().await.unwrap().to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn a_hyper_client_connects_to_the_instances_of_a_service() {
    let (first, second) = (server().await, server().await);
    let discovery = discovery(&[("auth", "127.0.0.1", first), ("auth", "127.0.0.1", second)]);
    let client = hyper_client(&discovery);
    let mut ports = Vec::new();
    for _ in 0..4 {
        ports.push(get_text(&client, "http://auth/who").await.unwrap());
    }
    ports.sort();
    ports.dedup();
    assert_eq!(ports.len(), 2, "connections are balanced");
    // A port in the URI, or an address, is not that of a service.
    let direct = format!("http://localhost:{first}/who");
    assert_eq!(get_text(&client, &direct).await.unwrap(), first.to_string());
    // An unknown name is an error that says so.
    let error = get_text(&client, "http://nobody/who").await.unwrap_err();
    assert!(error.contains("service \"nobody\" is unknown"), "{error}");
}

#[tokio::test]
async fn a_connector_tries_another_instance_if_it_can_not_connect() {
    let [refusing] = free_ports::<1>();
    let responding = server().await;
    let discovery = discovery(&[
        ("auth", "127.0.0.1", refusing),
        ("auth", "127.0.0.1", responding),
    ]);
    let client = hyper_client(&discovery);
    for _ in 0..4 {
        let answer = get_text(&client, "http://auth/who").await;
        assert_eq!(answer.unwrap(), responding.to_string());
    }
}

#[tokio::test]
async fn an_open_connection_counts_as_in_flight() {
    let port = server().await;
    let discovery = discovery(&[("auth", "127.0.0.1", port)]);
    let connector = ServiceConnector::new(discovery.clone(), HttpConnector::new());
    let in_flight = async || {
        let snapshot = discovery.directory().lookup(&auth()).await.unwrap();
        snapshot.endpoints()[0].in_flight()
    };
    let connection = tower::ServiceExt::oneshot(connector, "http://auth/".parse().unwrap());
    let connection = connection.await.unwrap();
    assert_eq!(in_flight().await, 1);
    drop(connection);
    assert_eq!(in_flight().await, 0);
}

fn reqwest_client(discovery: ServiceDiscoveryClient) -> reqwest::Client {
    let provider = rustls::crypto::ring::default_provider();
    let tls = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let builder = reqwest::Client::builder().tls_backend_preconfigured(tls);
    let builder = builder.dns_resolver(ServiceResolver::new(discovery));
    builder
        .no_proxy()
        .pool_max_idle_per_host(0)
        .build()
        .unwrap()
}

#[tokio::test]
async fn a_reqwest_client_resolves_services_with_their_ports() {
    let [refusing] = free_ports::<1>();
    let (first, second) = (server().await, server().await);
    let discovery = discovery(&[
        ("auth", "127.0.0.1", first),
        // Resolved by DNS.
        ("auth", "localhost", second),
        ("half", "127.0.0.1", refusing),
        ("half", "127.0.0.1", first),
    ]);
    let client = reqwest_client(discovery);
    let get = async |url: String| client.get(url).send().await?.text().await;
    let mut ports = Vec::new();
    for _ in 0..4 {
        ports.push(get("http://auth/who".to_owned()).await.unwrap());
    }
    ports.sort();
    ports.dedup();
    assert_eq!(ports.len(), 2, "connections are balanced");
    for _ in 0..4 {
        // The other instances are the fallback.
        let answer = get("http://half/who".to_owned()).await;
        assert_eq!(answer.unwrap(), first.to_string());
    }
    // A port in the URL replaces that of the instance.
    let explicit = get(format!("http://half:{second}/who")).await.unwrap();
    assert_eq!(explicit, second.to_string());
    let error = get("http://nobody/".to_owned()).await.unwrap_err();
    let mut text = String::new();
    let mut source: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = source {
        text += &error.to_string();
        source = error.source();
    }
    assert!(text.contains("service \"nobody\" is unknown"), "{text}");
}

#[tokio::test]
async fn other_hosts_are_resolved_by_the_system() {
    let port = server().await;
    let client = reqwest_client(discovery(&[("auth", "127.0.0.1", port)]));
    let url = format!("http://localhost:{port}/who");
    let answer = client.get(url).send().await.unwrap().text().await;
    assert_eq!(answer.unwrap(), port.to_string());
}
