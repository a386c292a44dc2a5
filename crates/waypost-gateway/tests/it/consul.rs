//! The gateway with a real Consul.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::time::sleep;
use waypost::provider::MemoryProvider;
use waypost::{Registrar, ServiceDiscoveryClient, ServiceRegistration};
use waypost_testkit::Consul;

use crate::support::{FullResponse, Origin, TestGateway, with_deadline};

async fn wait_for_status(gateway: &TestGateway, path: &str, status: StatusCode) -> FullResponse {
    with_deadline(&format!("{status} at {path}"), async {
        loop {
            let response = gateway.get(path).await;
            if response.status == status {
                return response;
            }
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

async fn start_with(consul: &Consul) -> (ServiceDiscoveryClient, TestGateway) {
    let address = consul.address();
    let port = address
        .rsplit(':')
        .next()
        .and_then(|port| port.parse().ok());
    let client = ServiceDiscoveryClient::builder()
        .registry("127.0.0.1", port.expect("a port"))
        .build()
        .expect("a client");
    let provider = Arc::clone(client.provider());
    let gateway = TestGateway::start_on(provider, MemoryProvider::new(), |_| ()).await;
    (client, gateway)
}

/// Registers a service and waits until that is done.
async fn register(client: &ServiceDiscoveryClient, service: &str, origin: &Origin) -> Registrar {
    let registration = ServiceRegistration::new(service, origin.address.port()).expect("a name");
    let registrar = Registrar::start(Arc::clone(client.provider()), registration);
    let registrar = registrar.expect("a registry");
    with_deadline("the registration", registrar.registered()).await;
    registrar
}

#[tokio::test]
async fn a_service_is_reachable_once_registered_and_keeps_its_route_after_deregistering() {
    let consul = Consul::start().await;
    let (client, gateway) = start_with(&consul).await;
    assert_eq!(gateway.get("/shop/").await.reason(), "unknown_service");

    let origin = Origin::text("hello").await;
    let registrar = register(&client, "shop", &origin).await;
    let response = wait_for_status(&gateway, "/shop/", StatusCode::OK).await;
    assert_eq!(response.text(), "hello");

    // Consul drops the name with its last instance.
    with_deadline("the deregistration", registrar.deregister())
        .await
        .expect("Consul responses");
    let response = wait_for_status(&gateway, "/shop/", StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(response.reason(), "no_instances");
    for _ in 0..20 {
        assert_eq!(gateway.get("/shop/").await.reason(), "no_instances");
    }
    assert_eq!(
        gateway.get("/consul/").await.reason(),
        "unknown_service",
        "Consul itself gets no route"
    );
}

#[tokio::test]
async fn it_keeps_serving_while_consul_is_down_and_registers_again_afterwards() {
    let mut consul = Consul::start().await;
    let (client, mut gateway) = start_with(&consul).await;
    let origin = Origin::text("hello").await;
    let _registrar = register(&client, "shop", &origin).await;
    wait_for_status(&gateway, "/shop/", StatusCode::OK).await;
    with_deadline("the registration", client.wait_for("api-gateway"))
        .await
        .expect("a name");

    consul.kill().await;
    with_deadline("the registry to be stale", async {
        while gateway.get("/internal/health").await.json()["registry"]["stale"] != true {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    for _ in 0..20 {
        assert_eq!(gateway.get("/shop/").await.status, StatusCode::OK);
    }

    // Consul restarts without data, so everything has to be registered again.
    consul.restart().await;
    with_deadline("the registry to be fresh", async {
        while gateway.get("/internal/health").await.json()["registry"]["stale"] != false {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    wait_for_status(&gateway, "/shop/", StatusCode::OK).await;
    let fresh = ServiceDiscoveryClient::new(Arc::clone(client.provider()));
    let registered = with_deadline("the registration", fresh.wait_for("api-gateway"))
        .await
        .expect("a name");
    let urls: Vec<_> = registered
        .instances()
        .map(|instance| instance.url().to_owned())
        .collect();
    assert_eq!(urls, [format!("http://{}", gateway.address)]);

    gateway.begin_shutdown();
    gateway.stopped().await;
    let fresh = ServiceDiscoveryClient::new(Arc::clone(client.provider()));
    let left = fresh.services().await.expect("Consul responses");
    assert!(!left.names().contains("api-gateway"), "{:?}", left.names());
}
