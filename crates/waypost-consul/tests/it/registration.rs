//! Registering instances, as Consul's own API then shows them.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use waypost_consul::ConsulProvider;
use waypost_core::provider::{HeartbeatResponse, InstanceReport, Provider, Registry};
use waypost_core::{Check, Health, Instance, InstanceId};
use waypost_testkit::{Consul, free_ports, http_client};

use crate::{Server, provider_at, register, until, web, web_registration};

async fn get(consul: &Consul, path: &str) -> Value {
    let response = http_client().get(consul.url(path)).send().await.unwrap();
    serde_json::from_str(&response.text().await.unwrap()).unwrap()
}

#[tokio::test]
async fn every_kind_of_check_is_registered_with_all_its_options() {
    let consul = Consul::start().await;
    let [port] = free_ports();
    let interval = Duration::from_secs(60);
    let registration = web_registration("web-1", port)
        .tagged_address("wan", "203.0.113.7".parse().unwrap(), 8443)
        .allow_tag_override()
        .deregister_critical_after(Some(Duration::from_secs(120)))
        .check(
            Check::http("/health")
                .method("POST")
                .header("x-probe", "one")
                .header("x-probe", "two")
                .body("{}")
                .with_tls_skip_verify()
                .every(interval)
                .timeout(Duration::from_secs(3))
                .with_name("by HTTP")
                .with_notes("requests /health")
                .with_initial_health(Health::Passing)
                .with_rise(2)
                .with_fall(3),
        )
        .check(
            Check::tcp()
                .every(interval)
                .with_initial_health(Health::Passing),
        )
        .check(
            Check::grpc("web.v1")
                .tls()
                .every(interval)
                .with_initial_health(Health::Warning),
        )
        .check(
            Check::script(["/bin/true"])
                .every(interval)
                .with_initial_health(Health::Passing),
        )
        .check(Check::ttl(Duration::from_secs(30)));
    let provider = ConsulProvider::new(&consul.address()).unwrap();
    let registration = register(&provider, registration).await;
    let heartbeat = provider.heartbeat(&registration, InstanceReport::alive());
    assert_eq!(heartbeat.await.unwrap(), HeartbeatResponse::Known);

    let service = get(&consul, "/v1/agent/service/web-1").await;
    assert_eq!(service["EnableTagOverride"], true);
    assert_eq!(service["TaggedAddresses"]["wan"]["Address"], "203.0.113.7");
    assert_eq!(service["TaggedAddresses"]["wan"]["Port"], 8443);
    // The instance has the address of the agent's node.
    assert_eq!(service["Address"], "");

    let checks = get(&consul, "/v1/agent/checks").await;
    let kinds = ["http", "tcp", "grpc", "script", "ttl"];
    for (position, kind) in kinds.iter().enumerate() {
        let check = &checks[format!("service:web-1:{}", position + 1)];
        assert_eq!(check["Type"], *kind, "{checks:#}");
    }
    assert_eq!(checks["service:web-1:1"]["Name"], "by HTTP");
    assert_eq!(checks["service:web-1:1"]["Notes"], "requests /health");
    assert_eq!(checks["service:web-1:5"]["Status"], "passing");

    let wan = provider_at(&consul, ConsulProvider::builder().tagged_address("wan"));
    // The worst status is that of the gRPC check.
    let has_warning = |found: &[Arc<Instance>]| found.iter().any(|i| i.health() == Health::Warning);
    let instances = until(&mut wan.watch(&web()), has_warning).await;
    assert_eq!(instances[0].url(), "http://203.0.113.7:8443");

    // Checks that only the earlier registration had are removed.
    let with_one_check = web_registration("web-1", port).check(Check::tcp());
    register(&provider, with_one_check).await;
    let checks = get(&consul, "/v1/agent/checks").await;
    assert_eq!(checks.as_object().unwrap().len(), 1, "{checks:#}");
}

#[tokio::test]
async fn deregistering_an_unknown_id_is_not_an_error() {
    for server in Server::start_each().await {
        let provider = server.provider();
        let registry = provider.registry().unwrap();
        let unknown = InstanceId::new("unknown");
        registry.deregister(&unknown).await.unwrap();
    }
}
