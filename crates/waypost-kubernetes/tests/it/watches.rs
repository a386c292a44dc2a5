//! How many watches the provider opens, and which instances a change affects.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use waypost_core::provider::{Provider, ServiceAnswer};
use waypost_core::{Health, Instance};
use waypost_fake_kubernetes::{ApiServer, manifest};

use crate::{
    TIMEOUT, WEB_URL, next, provider, put_web, start_server, start_server_with_web, until,
    until_only, watch_web,
};

#[tokio::test]
async fn a_changed_slice_leaves_other_instances_unchanged() {
    let server = start_server().await;
    server.put(&manifest::service("demo", "web", &[("http", 80)]));
    let slices: Vec<_> = manifest::many_slices("demo", "web", 5, 20).collect();
    for slice in &slices {
        server.put(slice);
    }
    let provider = provider(&server);
    let mut watch = watch_web(&provider);
    let before = until(&mut watch, |all| all.len() == 100).await;
    let mut changed = slices[3].clone();
    changed["endpoints"][7]["conditions"]["ready"] = false.into();
    let id = changed["endpoints"][7]["targetRef"]["name"].clone();
    server.put(&changed);
    let is_critical = |all: &[Arc<Instance>]| all.iter().any(|i| i.health() == Health::Critical);
    let after = until(&mut watch, is_critical).await;
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(before.id(), after.id());
        let is_same = Arc::ptr_eq(before, after);
        assert_eq!(is_same, *before.id().as_str() != id, "{}", before.id());
    }
}

#[tokio::test]
async fn all_services_of_a_namespace_share_two_watches_that_end_with_the_last_subscriber() {
    let server = start_server().await;
    for number in 0..20 {
        let name = format!("s{number}");
        let ports = [("http", 80)];
        server.put(&manifest::service("demo", &name, &ports));
        let endpoint = [manifest::endpoint(&format!("10.0.0.{}", number + 1))];
        server.put(&manifest::slice("demo", &name, &name, &ports, endpoint));
    }
    let provider = provider(&server);
    let mut watches = Vec::new();
    for number in 0..20 {
        let mut watch = provider.watch(&format!("s{number}").parse().unwrap());
        until(&mut watch, |all| all.len() == 1).await;
        watches.push(watch);
        let slices = last_query(&server, "endpointslices");
        let services = last_query(&server, "services");
        match number {
            0 => {
                let selector = "labelSelector=kubernetes.io%2Fservice-name%3Ds0";
                assert!(slices.contains(selector), "{slices}");
                assert!(services.contains("fieldSelector=metadata.name%3Ds0"));
            }
            // A label selector can select several slices, a field selector only one Service.
            1..8 => {
                assert!(slices.contains("labelSelector"), "{slices}");
                assert!(!services.contains("Selector"), "{services}");
            }
            _ => assert!(!slices.contains("Selector"), "{slices}"),
        }
    }
    wait_for_open_watches(&server, 2).await;
    drop(watches);
    wait_for_open_watches(&server, 0).await;
}

/// The age of an answer counts from the last time that the provider gave it.
#[tokio::test]
async fn an_answer_is_repeated_with_each_bookmark() {
    let builder = ApiServer::builder().namespace("demo");
    let builder = builder.bookmark_interval(Duration::from_millis(20));
    let server = builder.start().await.unwrap();
    put_web(&server, "10.0.0.1");
    let mut watch = watch_web(&provider(&server));
    let first = until_only(&mut watch, WEB_URL).await;
    for _ in 0..3 {
        let ServiceAnswer::Instances(again) = next(&mut watch).await.unwrap() else {
            panic!("the service is known")
        };
        assert!(Arc::ptr_eq(&again[0], &first));
    }
}

/// Each is ended after a few minutes.
#[tokio::test]
async fn a_watch_that_the_server_ends_continues_without_a_list_or_an_error() {
    let server = start_server_with_web().await;
    let provider = provider(&server);
    let mut watch = watch_web(&provider);
    until_only(&mut watch, WEB_URL).await;
    server.forget_requests();
    for address in ["10.0.0.2", "10.0.0.3"] {
        wait_for_open_watches(&server, 2).await;
        server.end_watches();
        put_web(&server, address);
        let is_new = |all: &[Arc<Instance>]| all[0].url().contains(address);
        while !matches!(next(&mut watch).await.unwrap(), ServiceAnswer::Instances(all) if is_new(&all))
        {
        }
    }
    // Liveness probes request one object.
    let is_list = |query: &str| !query.contains("watch=true") && !query.contains("limit=1");
    let mut requests = server.requests().into_iter();
    let list = requests.find(|it| is_list(&it.query) || it.query.contains("sendInitialEvents"));
    assert!(list.is_none(), "{list:?}");
}

/// A directory holds an empty answer longer after an outage.
#[tokio::test]
async fn the_answer_after_etcd_was_wiped_comes_after_an_error() {
    let server = start_server().await;
    let empty = server.backup();
    let provider = provider(&server);
    for restarts in [true, true, false] {
        // The last address is a new one, so that whoever has seen it has seen all of these versions.
        for n in 0..20 {
            put_web(&server, &format!("10.0.1.{n}"));
        }
        put_web(&server, "10.0.0.1");
        let mut watch = watch_web(&provider);
        until_only(&mut watch, WEB_URL).await;
        if restarts {
            server.restore(&empty).await.unwrap();
        } else {
            server.restore_without_restart(&empty);
        }
        let mut follows_error = false;
        loop {
            match next(&mut watch).await {
                Err(_) => follows_error = true,
                Ok(ServiceAnswer::Instances(all)) if !all.is_empty() => follows_error = false,
                Ok(_) => break,
            }
        }
        assert!(follows_error, "restarts: {restarts}");
    }
}

/// The query of the latest request for a resource.
fn last_query(server: &ApiServer, resource: &str) -> String {
    let requests = server.requests();
    let mut requests = requests.iter().rev();
    let last = requests.find(|request| request.resource == resource);
    last.unwrap().query.clone()
}

async fn wait_for_open_watches(server: &ApiServer, count: usize) {
    let waiting = async {
        while server.open_watches() != count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    if timeout(TIMEOUT, waiting).await.is_err() {
        panic!("{} open watches, not {count}", server.open_watches());
    }
}
