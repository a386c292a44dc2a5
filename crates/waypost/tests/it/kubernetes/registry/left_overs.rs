//! What a killed process leaves behind.

use std::time::{Duration, SystemTime};

use waypost::provider::{Heartbeat, Provider, Report};
use waypost::{Check, Health};
use waypost_fake_kubernetes::ApiServer;

use super::super::demo;
use super::{billing, instances, provider, register, slice_of};

/// Lets the slice of an instance look as if it had been renewed then and never since.
fn leave(server: &ApiServer, id: &str, renewed: &str) {
    let mut left = slice_of(server, id).unwrap();
    let at = &mut left["metadata"]["annotations"]["waypost.dev/renewed-at"];
    assert!(at.is_string());
    *at = renewed.into();
    left["apiVersion"] = "discovery.k8s.io/v1".into();
    left["kind"] = "EndpointSlice".into();
    server.put(&left);
}

fn minutes_ago(minutes: u64) -> String {
    let then = SystemTime::now() - Duration::from_secs(60 * minutes);
    humantime::format_rfc3339_seconds(then).to_string()
}

#[tokio::test]
async fn what_a_killed_process_left_is_not_used() {
    let server = demo().await;
    let provider = provider(&server);
    let checked = |id: &str, ip: &str| billing(ip).id(id).check(Check::http("/health"));
    let alive = register(&provider, checked("alive", "10.0.0.1")).await;
    register(&provider, checked("dead", "10.0.0.2"))
        .await
        .abandon();
    leave(&server, "dead", &minutes_ago(11));
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

/// Nobody can renew anything while the API server is away, so that after a long outage all look dead
/// to who comes first; a minute later only those do that are.
#[tokio::test]
async fn what_has_just_expired_is_cleared_with_the_next_renewal_of_another() {
    let server = demo().await;
    let provider = provider(&server);
    let checked = |id: &str, ip: &str| billing(ip).id(id).check(Check::http("/health"));
    register(&provider, checked("dead", "10.0.0.2"))
        .await
        .abandon();
    leave(&server, "dead", &minutes_ago(20));
    let alive = register(&provider, checked("alive", "10.0.0.1")).await;
    assert!(slice_of(&server, "dead").is_some());
    let registry = provider.registry().unwrap();
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    let beat = registry.heartbeat(alive.registration(), Report::alive());
    assert_eq!(beat.await.unwrap(), Heartbeat::Known);
    assert_eq!(slice_of(&server, "dead"), None);
    alive.deregister().await.unwrap();
}

#[tokio::test]
async fn what_a_killed_process_left_is_cleared_by_the_next_one() {
    let server = demo().await;
    let provider = provider(&server);
    let checked = |id: &str| billing("10.0.0.1").id(id).check(Check::http("/health"));
    let alive = register(&provider, checked("alive")).await;
    register(&provider, checked("dead")).await.abandon();
    register(&provider, billing("10.0.0.3").id("by-hand"))
        .await
        .abandon();
    leave(&server, "dead", "2020-01-01T00:00:00Z");

    let next = register(&provider, checked("next")).await;
    assert_eq!(slice_of(&server, "dead"), None);
    assert!(slice_of(&server, "alive").is_some());
    // What has no check is there until somebody takes it back, as with other registries.
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
    // An id that isn't there is no error.
    provider
        .registry()
        .unwrap()
        .deregister(&by_hand)
        .await
        .unwrap();
}
