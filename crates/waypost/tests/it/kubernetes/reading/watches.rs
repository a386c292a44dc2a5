//! What looking costs the API server, and a change its readers.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use waypost::provider::Provider;
use waypost::{Health, Instance};
use waypost_fake_kubernetes::manifest;

use super::super::{PATIENCE, demo, provider};
use super::until;

#[tokio::test]
async fn a_change_of_one_slice_leaves_the_others_instances_as_they_are() {
    let server = demo().await;
    server.put(&manifest::service("demo", "web", &[("http", 80)]));
    let slices: Vec<_> = manifest::many_slices("demo", "web", 5, 20).collect();
    for slice in &slices {
        server.put(slice);
    }
    let provider = provider(&server);
    let mut watch = provider.watch(&"web".parse().unwrap());
    let before = until(&mut watch, |all| all.len() == 100).await;
    let mut changed = slices[3].clone();
    changed["endpoints"][7]["conditions"]["ready"] = false.into();
    let id = changed["endpoints"][7]["targetRef"]["name"].clone();
    server.put(&changed);
    let critical = |all: &[Arc<Instance>]| all.iter().any(|i| i.health() == Health::Critical);
    let after = until(&mut watch, critical).await;
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.id(), after.id());
        let is_same = Arc::ptr_eq(before, after);
        assert_eq!(is_same, *before.id().as_str() != id, "{}", before.id());
    }
}

#[tokio::test]
async fn one_watch_serves_all_services_of_a_namespace_and_none_nobody() {
    let server = demo().await;
    for number in 0..20 {
        let name = format!("s{number}");
        server.put(&manifest::service("demo", &name, &[("http", 80)]));
        let endpoint = [manifest::endpoint(&format!("10.0.0.{}", number + 1))];
        server.put(&manifest::slice(
            "demo",
            &name,
            &name,
            &[("http", 80)],
            endpoint,
        ));
    }
    let provider = provider(&server);
    let mut watches = Vec::new();
    for number in 0..20 {
        let mut watch = provider.watch(&format!("s{number}").parse().unwrap());
        until(&mut watch, |all| all.len() == 1).await;
        watches.push(watch);
        let queries: Vec<_> = server.requests().into_iter().rev().collect();
        let last = |resource: &str| {
            let last = queries
                .iter()
                .find(|request| request.resource == resource)
                .unwrap();
            last.query.clone()
        };
        match number {
            0 => {
                let slices = last("endpointslices");
                assert!(
                    slices.contains("labelSelector=kubernetes.io%2Fservice-name%3Ds0"),
                    "{slices}"
                );
                assert!(last("services").contains("fieldSelector=metadata.name%3Ds0"));
            }
            // Some by their labels, for Services there is no such selector.
            1..8 => {
                assert!(last("endpointslices").contains("labelSelector"));
                assert!(!last("services").contains("Selector"));
            }
            _ => assert!(!last("endpointslices").contains("Selector")),
        }
    }
    wait_for(|| server.open_watches() == 2, "two watches").await;
    drop(watches);
    wait_for(|| server.open_watches() == 0, "no watch").await;
}

async fn wait_for(reached: impl Fn() -> bool, what: &str) {
    let waiting = async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, waiting)
        .await
        .unwrap_or_else(|_| panic!("never: {what}"));
}
