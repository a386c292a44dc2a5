//! Selecting instances by tag, version and metadata.

use std::sync::Arc;

use waypost::balance::{BalancerOptions, RoundRobin, Selection};
use waypost::outlier::OutlierDetection;
use waypost::provider::MemoryProvider;
use waypost::{Error, Health, Instance, Selector, ServiceDiscoveryClient, Weight};

use super::fixture::{Fixture, STRATEGIES, instance, settle};
use crate::scripted::auth;

/// Two of version 1 and two of version 2, of which one each has the tag `eu`.
fn versions() -> Vec<Arc<Instance>> {
    [
        ("a", "1", "eu"),
        ("b", "1", "us"),
        ("c", "2", "eu"),
        ("d", "2", "us"),
    ]
    .map(|(id, version, tag)| instance(id, |i| i.version(version).tag(tag).meta("team", "x")))
    .to_vec()
}

fn client(instances: Vec<Arc<Instance>>) -> (MemoryProvider, ServiceDiscoveryClient) {
    let memory = MemoryProvider::new();
    memory.replace(&auth(), instances.into_iter().map(Arc::unwrap_or_clone));
    (
        memory.clone(),
        ServiceDiscoveryClient::new(Arc::new(memory)),
    )
}

async fn picks(client: &ServiceDiscoveryClient, count: usize) -> Vec<String> {
    let mut ids = Vec::new();
    for _ in 0..count {
        ids.push(client.pick("auth").await.unwrap().id().to_string());
    }
    ids.sort();
    ids
}

#[tokio::test(start_paused = true)]
async fn a_selector_limits_all_strategies_and_look_ups() {
    for name in STRATEGIES {
        let (_, all) = client(versions());
        all.set_strategy_named(name).unwrap();
        let second = all.with_selector(Selector::new().version("2"));
        let ids = picks(&second, 200).await;
        assert!(
            ids.iter().all(|id| id == "c" || id == "d"),
            "{name}: {ids:?}"
        );
        assert!(
            ids.contains(&"c".to_owned()) && ids.contains(&"d".to_owned()),
            "{name}"
        );
        let one =
            second.with_selector(Selector::new().version("2").tag("eu").metadata("team", "x"));
        assert_eq!(picks(&one, 3).await, ["c"; 3], "{name}");
        let found = second.discover_service("auth").await.unwrap();
        assert_eq!(
            found.iter().map(|i| i.id().as_str()).collect::<Vec<_>>(),
            ["c", "d"]
        );
        assert_eq!(all.discover_service("auth").await.unwrap().len(), 4);
    }
}

#[tokio::test(start_paused = true)]
async fn each_selector_has_its_own_rotation() {
    // With one shared position, picks by turns with and without a selector would always meet the same
    // instance.
    let (_, all) = client(versions());
    let second = all.with_selector(Selector::new().version("2"));
    let (mut of_all, mut of_second) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        of_all.extend(picks(&all, 1).await);
        of_second.extend(picks(&second, 1).await);
    }
    of_all.sort();
    of_second.sort();
    assert_eq!(of_all, ["a", "b", "c", "d"]);
    assert_eq!(of_second, ["c", "c", "d", "d"]);
}

#[tokio::test(start_paused = true)]
async fn a_selection_follows_changes_of_the_service() {
    let (memory, all) = client(versions());
    let second = all.with_selector(Selector::new().version("2"));
    assert_eq!(picks(&second, 2).await, ["c", "d"]);
    let mut changed = versions();
    changed.push(instance("e", |i| i.version("2")));
    changed.remove(2);
    memory.replace(&auth(), changed.into_iter().map(Arc::unwrap_or_clone));
    settle().await;
    assert_eq!(picks(&second, 2).await, ["d", "e"]);
}

#[tokio::test(start_paused = true)]
async fn no_match_says_what_was_asked_for_and_what_there_is() {
    let (_, all) = client(versions());
    let third = all.with_selector(Selector::new().version("3").metadata("zone", "z"));
    let own = third.balancer("auth").unwrap();
    own.ready().await.unwrap();
    let errors = [
        third.pick("auth").await.unwrap_err(),
        third.discover_service("auth").await.unwrap_err(),
        third.service_url("auth", "/").await.unwrap_err(),
        own.pick().unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, Error::NoMatch { .. }), "{error:?}");
        assert!(error.is_no_usable_instance() && error.is_retryable());
        let message = error.to_string();
        assert!(
            message.starts_with(
                "no instance of service \"auth\" has version \"3\", metadata \"zone\" = \"z\"; its 4 \
                 instances have versions \"1\", \"2\", no metadata \"zone\", according to "
            ),
            "{message}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn matching_instances_that_are_critical_are_not_a_missing_match() {
    let sick = instance("sick", |i| i.version("2").health(Health::Critical));
    let (_, all) = client(vec![instance("well", |i| i.version("1")), sick]);
    let second = all.with_selector(Selector::new().version("2"));
    let error = second.pick("auth").await.unwrap_err();
    assert!(
        matches!(error, Error::NoneHealthy { instances: 1, .. }),
        "{error:?}"
    );
    // Not "its only instance": there are others, which the selector leaves out.
    let message = error.to_string();
    assert!(
        message.starts_with("the instance of service \"auth\" is not healthy, according to "),
        "{message}"
    );
    let unknown = second.pick("nobody").await.unwrap_err();
    assert!(
        matches!(unknown, Error::UnknownService { .. }),
        "{unknown:?}"
    );
    // The service as a whole can be used.
    assert_eq!(picks(&all, 2).await, ["well"; 2]);
}

#[tokio::test(start_paused = true)]
async fn drained_instances_are_the_last_resort_among_those_selected() {
    let drained = instance("drained", |i| i.version("2").weight(Weight::DRAINED));
    let (_, all) = client(vec![instance("well", |i| i.version("1")), drained]);
    let second = all.with_selector(Selector::new().version("2"));
    assert_eq!(picks(&second, 2).await, ["drained"; 2]);
    assert_eq!(second.discover_service("auth").await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn selections_share_requests_in_flight_and_ejections() {
    let options = BalancerOptions::default().selector(Selector::new().version("2"));
    let fixture = Fixture::with(
        versions(),
        RoundRobin::new(),
        options,
        OutlierDetection::default(),
    )
    .await;
    fixture.fail("c", 5);
    settle().await;
    assert_eq!(fixture.selection("c"), Selection::Ejected);
    assert_eq!(fixture.selection("a"), Selection::NotSelected);
    assert_eq!(fixture.picks(3), ["d"; 3]);
    // All that are selected fail: they are used again, which is not panic mode of the service.
    fixture.fail("d", 5);
    settle().await;
    assert_eq!(fixture.counts(100).len(), 2);
    assert_eq!(fixture.balancer.counters().panics, 0);
}

#[tokio::test(start_paused = true)]
async fn the_number_of_prepared_selections_is_bounded() {
    let (_, all) = client(versions());
    picks(&all, 1).await;
    let tasks = || {
        tokio::runtime::Handle::current()
            .metrics()
            .num_alive_tasks()
    };
    let before = tasks();
    for number in 0..1_000 {
        let other = all.with_selector(Selector::new().metadata("user", number.to_string()));
        assert!(other.pick("auth").await.is_err());
        // The one in use stays correct, whether it is still prepared or not.
        let second = all.with_selector(Selector::new().version("2"));
        assert_ne!(picks(&second, 1).await, ["a"]);
    }
    settle().await;
    assert!(tasks() <= before + 64, "{} tasks", tasks() - before);
}
