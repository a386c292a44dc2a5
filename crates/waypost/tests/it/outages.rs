//! The behaviour of the directory while its provider fails, as described in `docs/outages.md`, on a
//! paused clock.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use waypost::directory::{Directory, DirectoryOptions, Subscription};
use waypost::provider::ServiceAnswer;
use waypost::snapshot::Snapshot;
use waypost::{Error, Health, Instance, ProviderError, ProviderErrorKind, ServiceName};
use waypost_testkit::{Logs, free_ports};

use crate::scripted::{Item, ScriptedProvider, auth, instances, refused};

const MINUTE: Duration = Duration::from_secs(60);

fn directory(script: &ScriptedProvider, edit: impl FnOnce(&mut DirectoryOptions)) -> Directory {
    let mut options = DirectoryOptions::default();
    edit(&mut options);
    Directory::with_options(Arc::new(script.clone()), options)
}

/// From now on every attempt fails.
fn start_outage(script: &ScriptedProvider) {
    script.set_first_item(refused());
    script.send(refused());
    script.end_watches();
}

async fn until(subscription: &mut Subscription<Snapshot>, wanted: impl Fn(&Snapshot) -> bool) {
    let changes = async {
        while !wanted(&subscription.current()) {
            subscription.changed().await;
        }
    };
    let result = timeout(Duration::from_secs(3600), changes).await;
    assert!(result.is_ok(), "timeout at {:?}", subscription.current());
}

#[tokio::test(start_paused = true)]
async fn a_ten_minute_outage_fails_no_lookup_and_recovers_within_five_seconds() {
    let script = ScriptedProvider::default();
    script.set_first_item(instances(&["a"]));
    let directory = directory(&script, |_| ());
    assert!(directory.lookup(&auth()).await.is_ok());
    assert_eq!(script.watches_started(), 1);

    start_outage(&script);
    for second in 1..=600 {
        sleep(Duration::from_secs(1)).await;
        let found = directory.lookup(&auth()).await.unwrap();
        assert_eq!(found.usable().unwrap().len(), 1);
        assert!(found.freshness().is_stale());
        let age = found.freshness().age().unwrap();
        assert!(
            age >= Duration::from_secs(second),
            "{age:?} after {second} s"
        );
    }
    let [status] = &directory.status()[..] else {
        panic!("there must be one status");
    };
    assert_eq!((status.failing(), status.watches()), (1, 1));
    assert!(status.age().unwrap() >= 10 * MINUTE);
    assert_eq!(status.last_error().unwrap().message(), "connection refused");
    let attempts = script.watches_started() - 1;
    assert_eq!(status.reconnects(), attempts as u64);
    // A prober every 1 to 2.5 s after the first, shorter delays.
    assert!(attempts < 600, "{attempts}");

    script.set_first_item(instances(&["a", "b"]));
    let back = Instant::now();
    let mut subscription = directory.subscribe(&auth());
    until(&mut subscription, |found| !found.freshness().is_stale()).await;
    assert!(
        back.elapsed() < Duration::from_secs(5),
        "{:?}",
        back.elapsed()
    );
    assert_eq!(subscription.current().ready().len(), 2);
    assert_eq!(
        subscription.current().freshness().age(),
        Some(Duration::ZERO)
    );
    assert_eq!(directory.status()[0].failing(), 0);
    assert_eq!(directory.status()[0].age(), Some(Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn an_answer_older_than_max_stale_is_an_error() {
    let script = ScriptedProvider::default();
    script.set_first_item(instances(&["a"]));
    let directory = directory(&script, |options| options.max_stale = Some(5 * MINUTE));
    directory.lookup(&auth()).await.unwrap();
    // An answer doesn't age while its watch is live, even if it never changes.
    sleep(60 * MINUTE).await;
    directory.lookup(&auth()).await.unwrap().usable().unwrap();

    script.send(instances(&["a"]));
    sleep(Duration::from_secs(1)).await;
    start_outage(&script);
    sleep(4 * MINUTE).await;
    directory.lookup(&auth()).await.unwrap().usable().unwrap();
    sleep(2 * MINUTE).await;
    let error = directory.lookup(&auth()).await.unwrap_err();
    let Error::Stale { age, cause, .. } = &error else {
        panic!("{error:?}");
    };
    assert!(*age > 5 * MINUTE && cause.is_some());
    assert!(error.is_retryable() && !error.is_no_usable_instance());
    assert!(error.to_string().contains("too old: 6m"), "{error}");
    let held = directory.subscribe(&auth());
    assert!(matches!(held.current().usable(), Err(Error::Stale { .. })));

    script.set_first_item(instances(&["a"]));
    sleep(Duration::from_secs(5)).await;
    directory.lookup(&auth()).await.unwrap().usable().unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_after_an_outage_is_held_before_it_is_accepted() {
    let script = ScriptedProvider::default();
    script.set_first_item(instances(&["a"]));
    let directory = directory(&script, |_| ());
    let mut subscription = directory.subscribe(&auth());
    until(&mut subscription, |found| found.is_known()).await;

    // The registry has lost its data, and the services register again: only the age shows it.
    start_outage(&script);
    script.set_first_item(Ok(ServiceAnswer::Unknown));
    let held = |found: &Snapshot| {
        let failure = found.freshness().failure();
        failure.is_some_and(|f| f.error().kind() == ProviderErrorKind::Unconfirmed)
    };
    until(&mut subscription, held).await;
    assert!(subscription.current().freshness().is_stale());
    sleep(Duration::from_secs(5)).await;
    assert_eq!(subscription.current().usable().unwrap().len(), 1);
    script.send(instances(&["a", "b"]));
    until(&mut subscription, |found| found.ready().len() == 2).await;
    assert!(!subscription.current().freshness().is_stale());

    // The services don't register again: the empty answer is accepted after ten seconds.
    start_outage(&script);
    script.set_first_item(Ok(ServiceAnswer::Unknown));
    until(&mut subscription, held).await;
    let began = Instant::now();
    until(&mut subscription, |found| found.usable().is_err()).await;
    assert_eq!(began.elapsed().as_secs(), 10);
    assert!(!subscription.current().freshness().is_stale());
}

fn all_critical(ids: &[&str]) -> Item {
    let each = ids.iter().map(|id| {
        let builder = Instance::builder(auth(), "10.0.0.1".parse().unwrap(), 80).id(*id);
        Arc::new(builder.health(Health::Critical).build().unwrap())
    });
    Ok(ServiceAnswer::Instances(each.collect()))
}

#[tokio::test(start_paused = true)]
async fn an_answer_with_only_critical_instances_after_an_outage_is_held_before_it_is_accepted() {
    let script = ScriptedProvider::default();
    script.set_first_item(instances(&["a", "b"]));
    let directory = directory(&script, |_| ());
    let mut subscription = directory.subscribe(&auth());
    until(&mut subscription, |found| found.is_known()).await;
    let held = |found: &Snapshot| {
        let failure = found.freshness().failure();
        failure.is_some_and(|f| f.error().kind() == ProviderErrorKind::Unconfirmed)
    };

    // The registry has lost its data. An instance that has registered again is critical until it is checked.
    start_outage(&script);
    script.set_first_item(Ok(ServiceAnswer::Unknown));
    until(&mut subscription, held).await;
    script.send(all_critical(&["a"]));
    sleep(Duration::from_secs(9)).await;
    assert_eq!(subscription.current().usable().unwrap().len(), 2);
    script.send(instances(&["a"]));
    until(&mut subscription, |found| found.ready().len() == 1).await;
    assert!(!subscription.current().freshness().is_stale());

    // It stays critical, so the answer is accepted in the end.
    start_outage(&script);
    script.set_first_item(all_critical(&["a"]));
    until(&mut subscription, held).await;
    let began = Instant::now();
    until(&mut subscription, |found| found.ready().is_empty()).await;
    assert_eq!(began.elapsed().as_secs(), 10);

    // Without an outage, it is accepted at once.
    script.send(instances(&["a"]));
    until(&mut subscription, |found| found.ready().len() == 1).await;
    let began = Instant::now();
    script.send(all_critical(&["a"]));
    until(&mut subscription, |found| found.ready().is_empty()).await;
    assert!(began.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn the_instances_that_a_restored_registry_lacks_are_kept_until_agents_have_added_them() {
    for (hold, kept) in [(10, 70), (100, 100), (0, 0)] {
        let script = ScriptedProvider::default();
        script.set_first_item(instances(&["a"]));
        let hold = Duration::from_secs(hold);
        let directory = directory(&script, |options| options.hold_empty_after_outage = hold);
        let mut subscription = directory.subscribe(&auth());
        until(&mut subscription, |found| found.is_known()).await;
        script.set_first_item(Ok(ServiceAnswer::Unknown));
        let kind = ProviderErrorKind::Unconfirmed;
        script.send(Err(ProviderError::new(
            "script",
            kind,
            "restored from an older state",
        )));
        script.end_watches();
        let began = Instant::now();
        until(&mut subscription, |found| found.usable().is_err()).await;
        let elapsed = began.elapsed().as_secs();
        assert!(
            (kept..kept + 5).contains(&elapsed),
            "{elapsed} s with {hold:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_without_an_outage_is_held_only_if_configured() {
    for hold in [Duration::ZERO, Duration::from_secs(3)] {
        let script = ScriptedProvider::default();
        script.set_first_item(instances(&["a"]));
        let directory = directory(&script, |options| options.hold_empty = hold);
        let mut subscription = directory.subscribe(&auth());
        until(&mut subscription, |found| found.is_known()).await;
        script.send(instances(&[]));
        let began = Instant::now();
        until(&mut subscription, |found| found.usable().is_err()).await;
        assert_eq!(began.elapsed().as_secs(), hold.as_secs());
    }
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_many_services_logs_one_line_at_its_start_and_one_at_its_end() {
    let (logs, _guard) = Logs::take();
    let script = ScriptedProvider::default();
    script.set_first_item(instances(&["a"]));
    let directory = directory(&script, |_| ());
    let names = (0..300).map(|n| ServiceName::new(&format!("service-{n}")).unwrap());
    let mut all: Vec<_> = names.map(|name| directory.subscribe(&name)).collect();
    for subscription in &mut all {
        until(subscription, |found| found.is_known()).await;
    }
    start_outage(&script);
    sleep(10 * MINUTE).await;
    assert_eq!(directory.status()[0].failing(), 300);
    script.set_first_item(instances(&["a"]));
    let back = Instant::now();
    for subscription in &mut all {
        until(subscription, |found| !found.freshness().is_stale()).await;
    }
    assert!(
        back.elapsed() < Duration::from_secs(5),
        "{:?}",
        back.elapsed()
    );

    let down = logs.lines(&["provider unavailable", "connection refused"]);
    assert_eq!(down.len(), 1, "{down:#?}");
    let up = logs.lines(&["provider available again", "watches=300"]);
    assert_eq!(up.len(), 1, "{}", logs.text());
}

#[tokio::test(start_paused = true)]
async fn the_log_says_that_the_last_known_instances_are_served_only_if_there_are_any() {
    const SERVING: &str = "serving the last known instances";
    let (logs, _guard) = Logs::take();
    let script = ScriptedProvider::default();
    script.set_first_item(refused());
    let directory = directory(&script, |_| ());
    directory.lookup(&auth()).await.unwrap_err();
    let never = logs.lines(&["WARN", "provider unavailable", "it has not answered"]);
    assert_eq!(never.len(), 1, "{}", logs.text());
    assert!(logs.lines(&[SERVING]).is_empty());

    script.set_first_item(instances(&["a"]));
    let mut subscription = directory.subscribe(&auth());
    until(&mut subscription, |found| found.is_known()).await;
    start_outage(&script);
    until(&mut subscription, |found| found.freshness().is_stale()).await;
    assert_eq!(logs.lines(&["WARN", SERVING]).len(), 1, "{}", logs.text());
}

#[tokio::test(start_paused = true)]
async fn subscribers_are_notified_only_of_changes() {
    let script = ScriptedProvider::default();
    script.set_first_item(instances(&["a"]));
    let directory = directory(&script, |_| ());
    let mut subscription = directory.subscribe(&auth());
    until(&mut subscription, |found| found.is_known()).await;
    script.send(instances(&["a"]));
    assert!(timeout(MINUTE, subscription.changed()).await.is_err());
    script.send(refused());
    script.send(refused());
    subscription.changed().await;
    assert!(
        timeout(Duration::from_millis(1), subscription.changed())
            .await
            .is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn watches_of_unknown_services_are_closed_sooner() {
    let script = ScriptedProvider::default();
    script.set_first_item(Ok(ServiceAnswer::Unknown));
    let directory = directory(&script, |_| ());
    for n in 0..100 {
        let name = ServiceName::new(&format!("unknown-{n}")).unwrap();
        for _ in 0..10 {
            let found = directory.lookup(&name).await.unwrap();
            assert!(matches!(found.usable(), Err(Error::UnknownService { .. })));
        }
    }
    assert_eq!(script.watches_started(), 100);
    sleep(Duration::from_secs(61)).await;
    assert_eq!(script.open_watches(), 0);
}

#[tokio::test]
async fn the_snapshot_file_serves_a_start_while_the_registry_is_down() {
    let (logs, _guard) = Logs::take();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("snapshot");
    let with_file = |options: &mut DirectoryOptions| options.snapshot_file = Some(file.clone());
    let script = ScriptedProvider::default();
    script.set_first_item(instances(&["a", "b"]));
    let first = directory(&script, with_file);
    first.lookup(&auth()).await.unwrap();
    let written = async {
        while !file.exists() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(60), written).await.unwrap();
    drop(first);

    // While the registry is down: the stored answer, as stale.
    let script = ScriptedProvider::default();
    script.set_first_item(refused());
    let second = directory(&script, with_file);
    let found = second.lookup(&auth()).await.unwrap();
    assert_eq!(found.usable().unwrap().len(), 2);
    assert!(found.freshness().is_stale() && found.freshness().age().unwrap() > Duration::ZERO);
    let other = ServiceName::new("other").unwrap();
    assert!(second.lookup(&other).await.is_err());
    // When it is back: the new answer.
    script.set_first_item(instances(&["c"]));
    let mut subscription = second.subscribe(&auth());
    until(&mut subscription, |found| !found.freshness().is_stale()).await;
    assert_eq!(subscription.current().ready().len(), 1);
    drop((second, subscription));

    // If the registry is available at the start, the file is not used.
    let script = ScriptedProvider::default();
    script.set_first_item(instances(&["d"]));
    let found = directory(&script, with_file).lookup(&auth()).await.unwrap();
    assert!(!found.freshness().is_stale());
    assert_eq!(found.ready()[0].instance().id().as_str(), "d");

    // A damaged file is ignored with a warning.
    std::fs::write(&file, "waypost-snapshot 1 crc32=00000000 bytes=2\n{}").unwrap();
    let script = ScriptedProvider::default();
    script.set_first_item(refused());
    let error = directory(&script, with_file).lookup(&auth()).await;
    assert!(matches!(error, Err(Error::Unreachable { .. })));
    assert_eq!(logs.lines(&["WARN", "ignored", "checksum"]).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_file_that_cannot_be_written_is_reported_once_until_it_is_written_again() {
    let (logs, _guard) = Logs::take();
    let folder = tempfile::tempdir().unwrap();
    let obstacle = folder.path().join("snapshots");
    std::fs::write(&obstacle, "not a directory").unwrap();
    let script = ScriptedProvider::default();
    script.set_first_item(instances(&["a"]));
    let directory = directory(&script, |options| {
        options.snapshot_file = Some(obstacle.join("snapshot"));
    });
    let mut subscription = directory.subscribe(&auth());
    let mut change = async |id| {
        script.send(instances(&[id]));
        subscription.changed().await;
        sleep(Duration::from_secs(10)).await;
    };
    directory.lookup(&auth()).await.unwrap();
    for id in ["b", "c"] {
        change(id).await;
    }
    std::fs::remove_file(&obstacle).unwrap();
    for id in ["d", "e"] {
        change(id).await;
    }
    for line in [
        "snapshot file can't be written",
        "snapshot file written again",
    ] {
        assert_eq!(logs.lines(&[line]).len(), 1, "{}", logs.text());
    }
}

/// A gateway creates its routes from this list.
#[tokio::test]
async fn the_snapshot_file_serves_the_list_of_services_while_the_registry_is_down() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("snapshot");
    let with_file = |options: &mut DirectoryOptions| options.snapshot_file = Some(file.clone());
    let names = |catalog: &waypost::snapshot::Catalog| -> Vec<String> {
        catalog.names().iter().map(ToString::to_string).collect()
    };
    let script = ScriptedProvider::default();
    script.set_names(Ok(&["auth", "never-called"]));
    let first = directory(&script, with_file);
    first.catalog().await.unwrap();
    let written = async {
        while !file.exists() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(60), written).await.unwrap();
    drop(first);

    let script = ScriptedProvider::default();
    script.set_names(Err(ProviderError::unreachable(
        "script",
        "connection refused",
    )));
    let second = directory(&script, with_file);
    let found = second.catalog().await.unwrap();
    assert_eq!(names(&found), ["auth", "never-called"]);
    assert!(found.freshness().is_stale() && found.freshness().age().unwrap() > Duration::ZERO);
    // When the registry is back, its own list is used.
    script.set_names(Ok(&["billing"]));
    let mut subscription = second.subscribe_catalog();
    let fresh = async {
        while subscription.current().freshness().is_stale() {
            subscription.changed().await;
        }
    };
    timeout(Duration::from_secs(60), fresh).await.unwrap();
    assert_eq!(names(&subscription.current()), ["billing"]);

    // The same with a hanging registry, once the look-up has timed out.
    let silent = directory(&ScriptedProvider::default(), |options| {
        options.snapshot_file = Some(file.clone());
        options.lookup_timeout = Duration::from_millis(50);
    });
    assert!(!names(&silent.catalog().await.unwrap()).is_empty());
}

#[tokio::test(start_paused = true)]
async fn not_authorised_is_distinguished_from_an_outage() {
    let script = ScriptedProvider::default();
    let kind = ProviderErrorKind::NotAuthorised;
    script.set_first_item(Err(ProviderError::new(
        "script",
        kind,
        "403: Permission denied",
    )));
    let directory = directory(&script, |_| ());
    let error = directory.lookup(&auth()).await.unwrap_err();
    assert!(matches!(error, Error::NotAuthorised { .. }), "{error:?}");
    assert!(!error.is_retryable());
}

#[tokio::test(start_paused = true)]
async fn a_repeated_empty_answer_does_not_extend_the_hold() {
    let script = ScriptedProvider::default();
    script.set_first_item(instances(&["a"]));
    let directory = directory(&script, |options| {
        options.hold_empty = Duration::from_secs(5)
    });
    let mut subscription = directory.subscribe(&auth());
    until(&mut subscription, |found| found.is_known()).await;
    let began = Instant::now();
    script.send(instances(&[]));
    for _ in 0..4 {
        sleep(Duration::from_secs(1)).await;
        script.send(instances(&[]));
    }
    until(&mut subscription, |found| found.usable().is_err()).await;
    assert_eq!(began.elapsed().as_secs(), 5);
}

#[tokio::test(start_paused = true)]
async fn watches_restart_at_different_times_after_an_outage() {
    let script = ScriptedProvider::default();
    script.set_first_item(instances(&["a"]));
    let directory = directory(&script, |_| ());
    let names = (0..100).map(|n| ServiceName::new(&format!("service-{n}")).unwrap());
    let mut all: Vec<_> = names.map(|name| directory.subscribe(&name)).collect();
    for subscription in &mut all {
        until(subscription, |found| found.is_known()).await;
    }
    start_outage(&script);
    sleep(10 * MINUTE).await;
    script.set_first_item(instances(&["a"]));
    let mut times = Vec::new();
    while times.len() < all.len() {
        sleep(Duration::from_millis(10)).await;
        let stale = |s: &&Subscription<Snapshot>| s.current().freshness().is_stale();
        let fresh = all.len() - all.iter().filter(stale).count();
        times.resize(fresh, Instant::now());
    }
    // The first success wakes the others, who spread over half a second.
    times.dedup();
    assert!(times.len() >= 15, "{} moments", times.len());
    assert!(times[times.len() - 1] - times[0] >= Duration::from_millis(350));
}

/// The layers of a program in development: a registry that is down, over a fallback.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn in_development_a_first_lookup_never_fails_because_the_registry_is_down() {
    let [unused] = free_ports();
    let port = unused.to_string();
    let environment = waypost::Environment::default()
        .with("ENVIRONMENT", "development")
        .with("CONSUL_HOST", "127.0.0.1")
        .with("CONSUL_PORT", &port);
    for _ in 0..100 {
        let client = waypost::ServiceDiscoveryClient::builder()
            .environment(environment.clone())
            .build()
            .unwrap();
        let url = client.service_url("ai-models", "/x").await.unwrap();
        assert_eq!(url, "http://localhost:8000/x");
    }
}
