//! The directory: shared watches, look-ups, closing of unused watches.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::{Instant, advance, sleep};
use waypost::directory::{Directory, DirectoryOptions};
use waypost::provider::{MemoryProvider, ServiceAnswer};
use waypost::{Error, ProviderError, ServiceDiscoveryClient};

use crate::scripted::{ScriptedProvider, auth, instances, refused};

fn directory(script: &ScriptedProvider) -> Directory {
    Directory::new(Arc::new(script.clone()))
}

#[tokio::test(start_paused = true)]
async fn concurrent_first_lookups_share_one_watch() {
    let script = ScriptedProvider::default();
    let directory = directory(&script);
    let service = auth();
    let lookups = join_all((0..1000).map(|_| directory.lookup(&service)));
    let answer = async {
        sleep(Duration::from_secs(1)).await;
        script.send(instances(&["a", "b"]));
    };
    let (all, ()) = tokio::join!(lookups, answer);
    assert!(
        all.iter()
            .all(|found| found.as_ref().unwrap().ready().len() == 2)
    );
    assert_eq!(script.watches_started(), 1);
}

#[tokio::test(start_paused = true)]
async fn concurrent_first_lookups_get_the_same_error_without_waiting() {
    let script = ScriptedProvider::default();
    script.set_first_item(refused());
    let directory = directory(&script);
    let service = auth();
    let started = Instant::now();
    for found in join_all((0..1000).map(|_| directory.lookup(&service))).await {
        let error = found.unwrap_err();
        assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
        assert!(error.is_retryable());
        assert_eq!(error.provider(), Some("script"));
        assert_eq!(
            error.to_string(),
            "service \"auth\": registry unreachable: script: connection refused"
        );
    }
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(script.watches_started(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_removes_instances_and_an_error_does_not() {
    let script = ScriptedProvider::default();
    script.set_first_item(instances(&["a"]));
    let directory = directory(&script);
    let mut subscription = directory.subscribe(&auth());
    subscription.changed().await;
    while !subscription.current().is_known() {
        subscription.changed().await;
    }
    script.send(instances(&["a", "b"]));
    assert_eq!(subscription.changed().await.ready().len(), 2);
    script.send(Ok(ServiceAnswer::Unknown));
    let empty = subscription.changed().await;
    assert!(matches!(empty.usable(), Err(Error::NoInstances { .. })));

    script.send(instances(&["a"]));
    assert_eq!(subscription.changed().await.ready().len(), 1);
    script.send(refused());
    assert_eq!(subscription.changed().await.ready().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_lookup_without_an_answer_times_out() {
    let directory = directory(&ScriptedProvider::default());
    let error = directory.lookup(&auth()).await.unwrap_err();
    assert!(matches!(error, Error::TimedOut { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "service \"auth\": no answer from script in 10s"
    );
}

#[tokio::test(start_paused = true)]
async fn unused_watches_are_closed_and_reopened_on_demand() {
    let script = ScriptedProvider::default();
    script.set_first_item(instances(&["a"]));
    let mut options = DirectoryOptions::default();
    options.idle = Duration::from_secs(60);
    let client = ServiceDiscoveryClient::builder()
        .provider(script.clone())
        .directory_options(options)
        .build()
        .unwrap();
    // The watch stays open while the service is used.
    for _ in 0..10 {
        client.pick("auth").await.unwrap();
        sleep(Duration::from_secs(50)).await;
    }
    assert_eq!((script.watches_started(), script.open_watches()), (1, 1));

    let watched = client.directory().watched();
    assert_eq!(watched.len(), 1);
    assert_eq!(*watched[0].service(), auth());

    sleep(Duration::from_secs(121)).await;
    assert_eq!(script.open_watches(), 0);
    assert!(client.directory().watched().is_empty());

    client.pick("auth").await.unwrap();
    assert_eq!((script.watches_started(), script.open_watches()), (2, 1));

    // A subscription keeps the watch open, whether it is read or not.
    let subscription = client.directory().subscribe(&auth());
    sleep(Duration::from_secs(600)).await;
    assert_eq!(script.open_watches(), 1);
    drop(subscription);
    sleep(Duration::from_secs(181)).await;
    assert_eq!(script.open_watches(), 0);
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_client_ends_every_watch() {
    let script = ScriptedProvider::default();
    script.set_first_item(instances(&["a"]));
    let client = ServiceDiscoveryClient::new(Arc::new(script.clone()));
    client.pick("auth").await.unwrap();
    drop(client);
    advance(Duration::from_millis(1)).await;
    tokio::task::yield_now().await;
    assert_eq!(script.open_watches(), 0);
}

#[test]
fn a_client_outlives_the_runtime_of_its_watches() {
    let script = ScriptedProvider::default();
    script.set_first_item(instances(&["a"]));
    let client = ServiceDiscoveryClient::new(Arc::new(script.clone()));
    for run in 1..=2 {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let url = runtime.block_on(client.service_url("auth", "/x")).unwrap();
        assert_eq!(url, "http://10.0.0.1:80/x");
        runtime.block_on(async {
            let mut subscription = client.directory().subscribe(&auth());
            while subscription.changed().await.freshness().is_stale() {}
        });
        assert_eq!(script.watches_started(), run);
    }
}

/// The second time, the registry has become unreachable.
#[test]
fn the_list_of_services_outlives_the_runtime_of_its_watch() {
    let script = ScriptedProvider::default();
    script.set_names(Ok(&["auth"]));
    let directory = directory(&script);
    for is_stale in [false, true] {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        let catalog = runtime.block_on(directory.catalog()).unwrap();
        assert!(catalog.names().contains(&auth()));
        assert_eq!(catalog.freshness().is_stale(), is_stale);
        let error = ProviderError::unreachable("script", "connection refused");
        script.set_names(Err(error));
    }
}

#[test]
fn a_snapshot_that_is_held_beyond_its_runtime_is_stale() {
    let script = ScriptedProvider::default();
    script.set_first_item(instances(&["a"]));
    let client = ServiceDiscoveryClient::new(Arc::new(script));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let (balancer, subscription) = runtime.block_on(async {
        let balancer = client.balancer("auth").unwrap();
        balancer.ready().await.unwrap();
        (balancer, client.directory().subscribe(&auth()))
    });
    assert!(!balancer.snapshot().freshness().is_stale());
    assert_eq!(client.directory().status()[0].watches(), 1);
    drop(runtime);
    for snapshot in [balancer.snapshot(), subscription.current()] {
        let freshness = snapshot.freshness();
        assert!(freshness.is_stale());
        assert!(freshness.age().unwrap() > Duration::ZERO);
        let why = freshness.failure().unwrap().error().to_string();
        assert!(why.contains("runtime"), "{why}");
    }
    assert!(balancer.pick().is_ok());
    let status = &client.directory().status()[0];
    assert!(
        status.to_string().contains("no watch is running"),
        "{status}"
    );
    assert!(status.age().unwrap() > Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn wait_for_returns_when_an_instance_appears() {
    let script = ScriptedProvider::default();
    script.set_first_item(Ok(ServiceAnswer::Unknown));
    let client = ServiceDiscoveryClient::new(Arc::new(script.clone()));
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { client.wait_for("auth").await.unwrap().ready().len() }
    });
    sleep(Duration::from_secs(5)).await;
    assert!(!waiting.is_finished());
    script.send(instances(&["a"]));
    assert_eq!(waiting.await.unwrap(), 1);
}

#[tokio::test(start_paused = true)]
async fn try_pick_picks_only_from_a_service_that_is_already_watched() {
    let script = ScriptedProvider::default();
    script.set_first_item(instances(&["a"]));
    let client = ServiceDiscoveryClient::new(Arc::new(script));
    assert!(client.try_pick("auth").is_none());
    client.pick("auth").await.unwrap();
    assert_eq!(client.try_pick("auth").unwrap().id().as_str(), "a");
}

/// The task of a watch may run on another thread before the one that started it continues.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_first_lookup_sees_an_immediate_answer() {
    let script = ScriptedProvider::default();
    script.set_first_item(instances(&["a"]));
    for _ in 0..10_000 {
        let directory = directory(&script);
        let found = tokio::time::timeout(Duration::from_secs(60), directory.lookup(&auth())).await;
        assert!(found.expect("an answer at once").is_ok());
    }
}

/// The number of allocated bytes measures the cost of copies without a clock.
#[test]
fn a_first_lookup_costs_no_more_when_ten_thousand_services_are_known() {
    let memory = MemoryProvider::new();
    let client = ServiceDiscoveryClient::new(Arc::new(memory));
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().unwrap();
    let look_up = |numbers: std::ops::Range<u32>| {
        let lookups = || {
            runtime.block_on(async {
                for number in numbers.clone() {
                    let _ = client.pick(format!("service-{number}")).await;
                }
            });
        };
        allocation_counter::measure(lookups).bytes_total
    };
    look_up(0..100);
    let first = look_up(100..600);
    look_up(600..10_000);
    let last = look_up(10_000..10_500);
    assert!(last < 3 * first, "{first} bytes, then {last} bytes");
}
