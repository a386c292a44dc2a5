//! How outages of the API server affect a client. `docs/kubernetes-outages.md` has a row for each of
//! these tests.

mod load;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use waypost::ServiceDiscoveryClient;
use waypost::directory::DirectoryOptions;
use waypost::provider::kubernetes::KubernetesProvider;
use waypost_fake_kubernetes::{ApiServer, Builder, Request, manifest};

use self::load::{Effect, Load, Outage, client, hosts, put_web};
use super::{TIMEOUT, provider, start_server};

/// The longest time to recover: 1.5 s, with a margin for a busy machine. `kubernetes_outages` in `bench/`
/// measures this and the other times.
const RECOVERY_LIMIT: Duration = Duration::from_secs(45);
/// The longest time until an outage is noticed: 16 s for a hanging server, with a margin for a busy machine.
const DETECTION_LIMIT: Duration = Duration::from_secs(50);
/// The longest time until a restore of etcd is noticed: 13 s, with a margin for a busy machine.
const ROLLBACK_LIMIT: Duration = Duration::from_secs(50);

/// Runs an outage under load. No look-up may fail, and the client must recover in time.
async fn run_outage(server: Builder, outage: Outage, duration: Duration) -> Effect {
    let load = Load::start(server).await;
    let effect = load.run_outage(outage, duration, DETECTION_LIMIT).await;
    assert!(
        effect.recovered_after <= RECOVERY_LIMIT,
        "{outage:?}: {effect:?}"
    );
    let (lookups, failures) = load.stop();
    assert_eq!(failures, 0, "{failures} of {lookups} look-ups failed");
    assert!(lookups > 100, "{lookups} look-ups");
    effect
}

/// After its restart the server has no history, so watches get 410 in the stream.
#[tokio::test]
async fn killed_server_is_noticed_at_once() {
    let duration = Duration::from_secs(4);
    let effect = run_outage(ApiServer::builder(), Outage::Killed, duration).await;
    assert!(effect.stale_after.is_some(), "{effect:?}");
    assert!(effect.age > duration / 2, "{effect:?}");
}

#[tokio::test]
async fn frozen_server_is_noticed_by_liveness_probes() {
    let effect = run_outage(ApiServer::builder(), Outage::Frozen, Duration::ZERO).await;
    assert!(effect.stale_after.is_some(), "{effect:?}");
    assert!(effect.age > Duration::from_secs(5), "{effect:?}");
}

#[tokio::test]
async fn instances_are_stale_while_etcd_is_frozen() {
    let effect = run_outage(ApiServer::builder(), Outage::EtcdFrozen, Duration::ZERO).await;
    assert!(effect.stale_after.is_some(), "{effect:?}");
}

#[tokio::test]
async fn retries_back_off_while_the_server_answers_503() {
    let load = Load::start(ApiServer::builder()).await;
    // Killed first, so that all watches have to be reopened.
    load.server.kill().await;
    load.server.faults().fail_with(Some(503));
    load.server.restart().await.unwrap();
    load.server.forget_requests();
    let began = Instant::now();
    sleep(Duration::from_secs(5)).await;
    let some_retries = async {
        while load.server.requests().len() < 3 {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(TIMEOUT, some_retries).await.unwrap();
    let requests = load.server.requests();
    // Two watches that back off, and a liveness probe about each second.
    let most = 40 + 8 * (began.elapsed().as_secs() as usize).saturating_sub(5);
    assert!(requests.len() <= most, "{}", requests.len());
    assert!(all_answered_with(&requests, 503), "{requests:?}");
    assert!(load.snapshot().await.unwrap().freshness().is_stale());
    put_web(&load.server, "10.0.0.2");
    load.server.faults().heal();
    let healed = Instant::now();
    load.until_only("10.0.0.2").await;
    assert!(healed.elapsed() <= RECOVERY_LIMIT, "{:?}", healed.elapsed());
    assert_eq!(load.stop().1, 0);
}

#[tokio::test]
async fn changes_arrive_until_a_terminating_server_ends_its_watches() {
    let tail = Duration::from_secs(3);
    let load = Load::start(ApiServer::builder().termination_tail(tail)).await;
    let restart = async {
        load.server.terminate().await;
        load.server.restart().await.unwrap();
        Instant::now()
    };
    let change = async {
        sleep(Duration::from_millis(500)).await;
        put_web(&load.server, "10.0.0.3");
        load.until(|it| hosts(it) == ["10.0.0.3"]).await;
        put_web(&load.server, "10.0.0.2");
    };
    let began = Instant::now();
    let (restarted, ()) = tokio::join!(restart, change);
    assert!(began.elapsed() >= tail);
    load.until_only("10.0.0.2").await;
    let recovered_after = restarted.elapsed();
    assert!(recovered_after <= RECOVERY_LIMIT, "{recovered_after:?}");
    assert_eq!(load.stop().1, 0);
}

#[tokio::test]
async fn server_that_is_down_at_the_start_is_used_when_it_is_up() {
    let server = start_server().await;
    put_web(&server, "10.0.0.1");
    server.kill().await;
    let client = client(&server);
    let error = client.pick("web").await.unwrap_err().to_string();
    assert!(error.contains(&server.address().to_string()), "{error}");
    sleep(Duration::from_secs(3)).await;
    server.restart().await.unwrap();
    found_in_time(&client).await;
}

#[tokio::test]
async fn program_restarted_while_the_server_is_down_knows_services_and_names_from_its_file() {
    let server = start_server().await;
    put_web(&server, "10.0.0.1");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("snapshot");
    let client = || {
        let mut options = DirectoryOptions::default();
        options.snapshot_file = Some(file.clone());
        let builder = ServiceDiscoveryClient::builder().provider(provider(&server));
        builder.directory_options(options).build().unwrap()
    };
    let first = client();
    found_in_time(&first).await;
    first.services().await.unwrap();
    let written = async {
        let is_complete = |text: String| text.contains("10.0.0.1") && text.contains("\"names\"");
        while !std::fs::read_to_string(&file).is_ok_and(is_complete) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(TIMEOUT, written).await.unwrap();
    drop(first);

    server.kill().await;
    let second = client();
    let pick = second.pick("web").await.unwrap();
    assert_eq!(pick.url_for("/"), "http://10.0.0.1:80/");
    let names = second.services().await.unwrap();
    assert!(names.freshness().is_stale());
    assert!(
        names.names().iter().any(|name| name.as_str() == "web"),
        "{names:?}"
    );
}

/// Whether all requests got this status, other than one that is just being answered.
fn all_answered_with(requests: &[Request], code: u16) -> bool {
    requests
        .iter()
        .all(|request| request.code.is_none_or(|it| it == code))
}

/// Waits for an instance of `web`, at most as long as recovery may take.
async fn found_in_time(client: &ServiceDiscoveryClient) {
    let found = timeout(RECOVERY_LIMIT, client.wait_for("web")).await;
    found.expect("not found in time").unwrap();
}

/// A watch from a future revision gets 200, and then no data.
#[tokio::test]
async fn etcd_restore_with_server_restart_is_detected() {
    let load = Load::start(ApiServer::builder()).await;
    let backup = load.server.backup();
    put_web(&load.server, "10.0.0.2");
    load.until_only("10.0.0.2").await;
    for change in 0..50 {
        put_web(&load.server, &format!("10.0.1.{change}"));
    }
    put_web(&load.server, "10.0.0.3");
    load.until_only("10.0.0.3").await;
    load.server.restore(&backup).await.unwrap();
    until_restored(load).await;
}

/// No connection breaks: the open watches continue on one server, and another one answers requests.
#[tokio::test]
async fn etcd_restore_behind_open_watches_is_detected() {
    let load = Load::start(ApiServer::builder()).await;
    let backup = load.server.backup();
    for change in 0..50 {
        put_web(&load.server, &format!("10.0.1.{change}"));
    }
    put_web(&load.server, "10.0.0.3");
    load.until_only("10.0.0.3").await;
    // Gives watches that are being opened time to open.
    sleep(Duration::from_millis(100)).await;
    let watches = load.server.open_watches();
    load.server.restore_without_restart(&backup);
    let detected_after = until_restored(load).await;
    assert!(watches >= 2 && detected_after > Duration::from_millis(50));
}

/// Waits for the endpoint of the backup, and then for a change. Returns how long the first took.
async fn until_restored(load: Load) -> Duration {
    let restored = Instant::now();
    load.until_only("10.0.0.1").await;
    let detected_after = restored.elapsed();
    assert!(detected_after <= ROLLBACK_LIMIT, "{detected_after:?}");
    put_web(&load.server, "10.0.0.4");
    load.until_only("10.0.0.4").await;
    assert_eq!(load.stop().1, 0);
    detected_after
}

/// After a 410 no event reports a deletion; objects missing from the new list were deleted.
#[tokio::test]
async fn slice_deleted_during_an_outage_is_gone_after_it() {
    let load = Load::start(ApiServer::builder()).await;
    let endpoint = [manifest::endpoint("10.0.0.9")];
    let slice = manifest::slice("demo", "web", "web-2", &[("http", 80)], endpoint);
    load.server.put(&slice);
    load.until(|it| hosts(it).len() == 2).await;
    load.server.kill().await;
    load.server.delete("endpointslices", "demo", "web-2");
    load.server.restart().await.unwrap();
    let restarted = Instant::now();
    load.until_only("10.0.0.1").await;
    let recovered_after = restarted.elapsed();
    assert!(recovered_after <= RECOVERY_LIMIT, "{recovered_after:?}");
    assert_eq!(load.stop().1, 0);
}

#[tokio::test]
async fn slow_watcher_that_is_disconnected_misses_no_change() {
    let server = ApiServer::builder().slow_reader(Duration::from_millis(1), 200);
    let load = Load::start(server).await;
    for change in 0..3000 {
        let address = format!("10.1.{}.{}", change / 200, change % 200);
        put_web(&load.server, &address);
        if change % 100 == 0 {
            sleep(Duration::from_millis(1)).await;
        }
    }
    put_web(&load.server, "10.0.0.2");
    load.until_only("10.0.0.2").await;
    assert_eq!(load.stop().1, 0);
}

/// A LIST in pages would not be answered from the cache.
#[tokio::test]
async fn server_without_watch_list_is_listed_from_its_cache_in_one_request() {
    let server = start_server().await;
    server.faults().disable_watch_list(true);
    server.put(&manifest::service("demo", "web", &[("http", 80)]));
    for slice in manifest::many_slices("demo", "web", 12, 60) {
        server.put(&slice);
    }
    server.faults().freeze_etcd(true);
    let client = client(&server);
    let found = timeout(RECOVERY_LIMIT, client.wait_for("web")).await;
    assert_eq!(found.unwrap().unwrap().ready().len(), 720);
    let requests = server.requests();
    let lists = requests.iter().filter(|request| request.verb == "list");
    let answered: Vec<_> = lists.filter(|request| request.code == Some(200)).collect();
    assert!(answered.len() >= 2, "{answered:?}");
    let from_cache = |query: &str| query.contains("resourceVersion=0");
    assert!(answered.iter().all(|list| from_cache(&list.query)));
}

#[tokio::test]
async fn client_can_start_while_etcd_is_frozen() {
    let server = start_server().await;
    put_web(&server, "10.0.0.1");
    server.faults().freeze_etcd(true);
    found_in_time(&client(&server)).await;
}

#[tokio::test]
async fn instances_of_a_deleted_namespace_are_gone() {
    let server = ApiServer::builder()
        .namespace("demo")
        .namespace_deletion(Duration::ZERO)
        .start()
        .await
        .unwrap();
    put_web(&server, "10.0.0.1");
    let client = client(&server);
    client.wait_for("web").await.unwrap();
    assert!(server.delete("namespaces", "", "demo"));
    let gone = async {
        loop {
            match client.pick("web").await {
                Err(error) => break error.to_string(),
                Ok(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let error = timeout(RECOVERY_LIMIT, gone).await.unwrap();
    assert!(error.contains("has no instances"), "{error}");
    // A client that did not know the service reports it as unknown.
    let new_client = self::client(&server);
    let error = new_client.pick("web").await.unwrap_err().to_string();
    assert!(error.contains("is unknown"), "{error}");
    let catalog = new_client.directory().catalog().await.unwrap();
    assert_eq!(catalog.names().len(), 0);
    // A namespace of the same name that is created later is used.
    put_web(&server, "10.0.0.2");
    found_in_time(&client).await;
}

/// The server's load filter answers with plain text.
#[tokio::test]
async fn retry_after_of_an_overloaded_server_is_respected() {
    let server = start_server().await;
    put_web(&server, "10.0.0.1");
    server.faults().fail_with(Some(429));
    let client = client(&server);
    let error = client.pick("web").await.unwrap_err().to_string();
    assert!(error.contains("429: Too many requests"), "{error}");
    server.forget_requests();
    let began = Instant::now();
    sleep(Duration::from_secs(3)).await;
    let some_retries = async {
        while server.requests().is_empty() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(TIMEOUT, some_retries).await.unwrap();
    let (requests, seconds) = (server.requests().len(), began.elapsed().as_secs() as usize);
    // Two watches, each at least a second after the last attempt.
    assert!(
        requests <= 2 * seconds,
        "{requests} requests in {seconds} s"
    );
    server.faults().heal();
    let found = timeout(TIMEOUT, client.wait_for("web")).await;
    found.unwrap().unwrap();
}

/// A new API server with an old etcd.
#[tokio::test]
async fn failed_watch_list_falls_back_to_list() {
    let server = start_server().await;
    put_web(&server, "10.0.0.1");
    server.faults().fail_watch_list(true);
    found_in_time(&client(&server)).await;
}

/// The API does not distinguish a missing namespace from an empty one.
#[tokio::test]
async fn services_of_a_missing_namespace_are_unknown() {
    let server = start_server().await;
    put_web(&server, "10.0.0.1");
    let client = client(&server);
    let error = client.pick("web.dmeo").await.unwrap_err().to_string();
    assert!(error.contains("web.dmeo"), "{error}");
    client.pick("web.demo").await.unwrap();
}

#[tokio::test]
async fn instances_are_kept_while_permissions_are_revoked() {
    let server = start_server().await;
    put_web(&server, "10.0.0.1");
    server.add_user("reader");
    let rules = manifest::read_rules(&["list", "watch"]);
    server.grant("reader", "demo", &rules);
    let kubeconfig = server.kubeconfig_of("reader").unwrap();
    let provider = KubernetesProvider::builder().kubeconfig(kubeconfig);
    let client = ServiceDiscoveryClient::new(Arc::new(provider.build().unwrap()));
    client.wait_for("web").await.unwrap();
    // Open watches continue, so a restart closes them.
    server.revoke("reader", "demo");
    server.kill().await;
    server.restart().await.unwrap();
    server.forget_requests();
    sleep(Duration::from_secs(4)).await;
    client.pick("web").await.unwrap();
    let requests = server.requests();
    let watches = requests.iter().filter(|request| request.verb == "watch");
    let watches = watches.count();
    assert!(all_answered_with(&requests, 403), "{requests:?}");
    // Two watches, each after 0, 0.5, 1 and 2 s on average at most.
    assert!(watches <= 14, "{watches} watches in 4 s: {requests:?}");
    server.grant("reader", "demo", &rules);
    put_web(&server, "10.0.0.2");
    let found = async {
        loop {
            let web = "web".parse().unwrap();
            let found = client.directory().lookup(&web).await.unwrap();
            if hosts(&found) == ["10.0.0.2"] && !found.freshness().is_stale() {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(TIMEOUT, found).await.unwrap();
    assert!((1..=2).contains(&server.open_watches()));
}
