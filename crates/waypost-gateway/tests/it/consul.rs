//! The gateway with a real Consul.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use tokio::time::{Instant, sleep};
use waypost::{MemoryProvider, Registrar, ServiceDiscoveryClient, ServiceRegistration};
use waypost_testkit::Consul;

use crate::support::{Answer, Origin, TestGateway, soon};

async fn answers(gateway: &TestGateway, path: &str, status: StatusCode) -> Answer {
    soon(&format!("{status} at {path}"), async {
        loop {
            let answer = gateway.get(path).await;
            if answer.status == status {
                return answer;
            }
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await
}

async fn at(consul: &Consul) -> (ServiceDiscoveryClient, TestGateway) {
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

/// Registered from now on.
async fn register(client: &ServiceDiscoveryClient, service: &str, origin: &Origin) -> Registrar {
    let registration = ServiceRegistration::new(service, origin.address.port()).expect("a name");
    let registrar = Registrar::start(Arc::clone(client.provider()), registration);
    let registrar = registrar.expect("a registry");
    soon("the registration", registrar.registered()).await;
    registrar
}

#[tokio::test]
async fn a_service_is_reachable_within_a_second_and_its_route_outlives_it() {
    let consul = Consul::start().await;
    let (client, gateway) = at(&consul).await;
    assert_eq!(gateway.get("/shop/").await.reason(), "unknown_service");

    // The quickest of a few: what the others take longer is the machine's.
    let origin = Origin::says("hello").await;
    let mut quickest = Duration::MAX;
    let mut registrars = Vec::new();
    for service in ["shop", "cart", "bank"] {
        registrars.push(register(&client, service, &origin).await);
        let registered_at = Instant::now();
        let answer = answers(&gateway, &format!("/{service}/"), StatusCode::OK).await;
        assert_eq!(answer.text(), "hello");
        quickest = quickest.min(registered_at.elapsed());
    }
    assert!(quickest < Duration::from_secs(1), "{quickest:?}");
    let registrar = registrars.swap_remove(0);

    // With its last instance Consul forgets the name.
    soon("the deregistration", registrar.deregister())
        .await
        .expect("Consul answers");
    let answer = answers(&gateway, "/shop/", StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(answer.reason(), "no_instances");
    for _ in 0..20 {
        assert_eq!(gateway.get("/shop/").await.reason(), "no_instances");
    }
    assert_eq!(
        gateway.get("/consul/").await.reason(),
        "unknown_service",
        "not for the outside"
    );
}

#[tokio::test]
async fn without_consul_it_serves_on_and_is_registered_again_afterwards() {
    let mut consul = Consul::start().await;
    let (client, mut gateway) = at(&consul).await;
    let origin = Origin::says("hello").await;
    let _registrar = register(&client, "shop", &origin).await;
    answers(&gateway, "/shop/", StatusCode::OK).await;
    soon("the registration", client.wait_for("api-gateway"))
        .await
        .expect("a name");

    consul.kill().await;
    soon("the bad news", async {
        while gateway.get("/internal/health").await.json()["registry"]["stale"] != true {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    for _ in 0..20 {
        assert_eq!(gateway.get("/shop/").await.status, StatusCode::OK);
    }

    // It comes back with nothing remembered, and is told everything anew.
    consul.restart().await;
    soon("the good news", async {
        while gateway.get("/internal/health").await.json()["registry"]["stale"] != false {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    answers(&gateway, "/shop/", StatusCode::OK).await;
    let fresh = ServiceDiscoveryClient::new(Arc::clone(client.provider()));
    let itself = soon("the registration", fresh.wait_for("api-gateway"))
        .await
        .expect("a name");
    let urls: Vec<_> = itself
        .instances()
        .map(|instance| instance.url().to_owned())
        .collect();
    assert_eq!(urls, [format!("http://{}", gateway.address)]);

    gateway.tell_to_stop();
    gateway.stopped().await;
    let fresh = ServiceDiscoveryClient::new(Arc::clone(client.provider()));
    let left = fresh.services().await.expect("Consul answers");
    assert!(!left.names().contains("api-gateway"), "{:?}", left.names());
}
