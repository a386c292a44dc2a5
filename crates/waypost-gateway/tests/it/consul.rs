//! The gateway with a real Consul.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::sleep;
use waypost::provider::MemoryProvider;
use waypost::{Registrar, ServiceDiscoveryClient, ServiceRegistration};
use waypost_testkit::Consul;

use crate::support::{FullResponse, Origin, RawOrigin, TestGateway, with_deadline};

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
    start_at(port.expect("a port")).await
}

/// Starts a gateway whose registry is at this port.
async fn start_at(port: u16) -> (ServiceDiscoveryClient, TestGateway) {
    let client = ServiceDiscoveryClient::builder()
        .registry("127.0.0.1", port)
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

/// Forwards connections to Consul, and counts the requests for instances of services.
async fn counting_proxy(consul: &Consul) -> (SocketAddr, Arc<AtomicUsize>) {
    let (consul, counted) = (consul.address(), Arc::new(AtomicUsize::new(0)));
    let requests = Arc::clone(&counted);
    let proxy = RawOrigin::start(move |client| {
        let (consul, requests) = (consul.clone(), Arc::clone(&requests));
        async move {
            let Ok(server) = TcpStream::connect(consul).await else {
                return;
            };
            let (mut from_client, mut to_client) = client.into_split();
            let (mut from_server, mut to_server) = server.into_split();
            let upwards = async {
                let mut piece = vec![0; 64 * 1024];
                while let Ok(length @ 1..) = from_client.read(&mut piece).await {
                    let text = String::from_utf8_lossy(&piece[..length]);
                    let found = text.matches("/v1/health/service/").count();
                    requests.fetch_add(found, Ordering::SeqCst);
                    if to_server.write_all(&piece[..length]).await.is_err() {
                        break;
                    }
                }
            };
            let downwards = tokio::io::copy(&mut from_server, &mut to_client);
            tokio::select! {
                () = upwards => {}
                _ = downwards => {}
            }
        }
    })
    .await;
    (proxy.address, counted)
}

#[tokio::test]
async fn pages_of_500_services_start_no_watches() {
    const SERVICES: usize = 500;
    let consul = Consul::start().await;
    let (proxy, requests) = counting_proxy(&consul).await;
    let (_, gateway) = start_at(proxy.port()).await;
    let register = async |number| {
        let service = json!({"Service": format!("s{number:03}"), "Port": 1});
        let node = json!({"Node": "n", "Address": "127.0.0.1", "Service": service});
        consul.put("/v1/catalog/register", &node).await;
    };
    let registering = stream::iter(0..SERVICES).map(register);
    registering.buffer_unordered(16).collect::<()>().await;
    let all = ["/internal/services", "/internal/routes"].map(|page| format!("{page}?limit=1000"));
    for (page, list) in all.iter().zip(["services", "routes"]) {
        with_deadline("all services", async {
            let count = |shown: &Value| shown[list].as_array().map_or(0, Vec::len);
            // Besides them, Consul and the gateway are listed.
            while count(&gateway.get(page).await.json()) < SERVICES {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
    gateway.get("/").await;
    gateway.get("/metrics").await;
    assert_eq!(requests.load(Ordering::SeqCst), 0);
    assert_eq!(gateway.discovery.directory().watched().len(), 0);
    let shown = gateway.get(&all[0]).await.json();
    assert_eq!(shown["services"][7]["state"], "not_watched");

    // A service that is called, and one that a request asks for, are watched.
    assert_eq!(gateway.get("/s000/").await.reason(), "connect_failed");
    assert_eq!(gateway.service("s000").await["state"], "ready");
    let asked = gateway.get("/internal/services?service=s001").await.json();
    assert_eq!(
        asked["services"][0]["instances"][0]["url"],
        "http://127.0.0.1:1"
    );
    let watched = gateway.discovery.directory().watched();
    let watched = watched.iter().map(|snapshot| snapshot.service().as_str());
    assert_eq!(watched.collect::<Vec<_>>(), ["s000", "s001"]);
}

#[tokio::test]
async fn the_pages_list_the_names_that_are_not_valid() {
    let consul = Consul::start().await;
    let (_, gateway) = start_with(&consul).await;
    for name in ["team/users", "web"] {
        let service = json!({"ID": name, "Name": name, "Port": 1});
        consul.put("/v1/agent/service/register", &service).await;
    }
    let why = "'/' is not allowed; use ASCII letters, digits, '-', '_' and '.'";
    let ignored = json!({"count": 1, "names": [{"name": "team/users", "why": why}]});
    for page in ["/", "/internal/services"] {
        with_deadline(page, async {
            while gateway.get(page).await.json()["ignored"] != ignored {
                sleep(Duration::from_millis(10)).await;
            }
        })
        .await;
    }
    let deregister = "/v1/agent/service/deregister/team%2Fusers";
    consul.put(deregister, &Value::Null).await;
    with_deadline("no such name", async {
        while gateway.get("/").await.json()["ignored"]["count"] != 0 {
            sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
}
