//! Instances of processes that were killed without deregistering.

use std::time::{Duration, SystemTime};

use waypost::provider::{HeartbeatResponse, InstanceReport, Provider};
use waypost::{Check, Health};
use waypost_fake_kubernetes::ApiServer;

use super::super::start_server;
use super::{billing, instances, provider, register, slice_of};

/// Changes the time of the latest renewal of an instance.
fn set_renewed_at(server: &ApiServer, id: &str, renewed_at: &str) {
    let mut slice = slice_of(server, id).unwrap();
    let annotation = &mut slice["metadata"]["annotations"]["waypost.dev/renewed-at"];
    assert!(annotation.is_string());
    *annotation = renewed_at.into();
    slice["apiVersion"] = "discovery.k8s.io/v1".into();
    slice["kind"] = "EndpointSlice".into();
    server.put(&slice);
}

fn minutes_ago(minutes: u64) -> String {
    let then = SystemTime::now() - Duration::from_secs(60 * minutes);
    humantime::format_rfc3339_seconds(then).to_string()
}

#[tokio::test]
async fn expired_instance_is_critical() {
    let server = start_server().await;
    let provider = provider(&server);
    let checked = |id: &str, ip: &str| billing(ip).id(id).check(Check::http("/health"));
    let alive = register(&provider, checked("alive", "10.0.0.1")).await;
    register(&provider, checked("dead", "10.0.0.2"))
        .await
        .abandon();
    set_renewed_at(&server, "dead", &minutes_ago(11));
    let found = instances(&provider, "billing").await;
    let found: Vec<_> = found
        .iter()
        .map(|it| (it.id().as_str(), it.health()))
        .collect();
    assert_eq!(
        found,
        [("alive", Health::Passing), ("dead", Health::Critical)]
    );
    alive.deregister().await.unwrap();
}

/// Right after an outage of the API server, running instances look expired as well. So a registration
/// does not delete what has only just expired, but a renewal a minute later does.
#[tokio::test]
async fn recently_expired_slice_is_deleted_with_the_next_renewal_of_another_instance() {
    let server = start_server().await;
    let provider = provider(&server);
    let checked = |id: &str, ip: &str| billing(ip).id(id).check(Check::http("/health"));
    register(&provider, checked("dead", "10.0.0.2"))
        .await
        .abandon();
    set_renewed_at(&server, "dead", &minutes_ago(20));
    let alive = register(&provider, checked("alive", "10.0.0.1")).await;
    assert!(slice_of(&server, "dead").is_some());
    let registry = provider.registry().unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    let beat = registry.heartbeat(alive.registration(), InstanceReport::alive());
    assert_eq!(beat.await.unwrap(), HeartbeatResponse::Known);
    assert_eq!(slice_of(&server, "dead"), None);
    alive.deregister().await.unwrap();
}

#[tokio::test]
async fn long_expired_slice_is_deleted_by_the_next_registration() {
    let server = start_server().await;
    let provider = provider(&server);
    let checked = |id: &str| billing("10.0.0.1").id(id).check(Check::http("/health"));
    let alive = register(&provider, checked("alive")).await;
    register(&provider, checked("dead")).await.abandon();
    register(&provider, billing("10.0.0.3").id("by-hand"))
        .await
        .abandon();
    set_renewed_at(&server, "dead", "2020-01-01T00:00:00Z");

    let next = register(&provider, checked("next")).await;
    assert_eq!(slice_of(&server, "dead"), None);
    assert!(slice_of(&server, "alive").is_some());
    // An instance without health checks stays until it is deregistered, as in other registries.
    assert!(slice_of(&server, "by-hand").is_some());
    for registrar in [alive, next] {
        registrar.deregister().await.unwrap();
    }
    let by_hand = "by-hand".into();
    provider
        .registry()
        .unwrap()
        .deregister(&by_hand)
        .await
        .unwrap();
    assert_eq!(server.get("services", "demo", "billing"), None);
    // Deregistering an unknown id is no error.
    provider
        .registry()
        .unwrap()
        .deregister(&by_hand)
        .await
        .unwrap();
}
