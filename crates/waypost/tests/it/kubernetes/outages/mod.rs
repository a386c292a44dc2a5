//! What users notice when an API server lets its clients down. `docs/kubernetes-outages.md` has a
//! row for each of these.

mod steady;

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use waypost_fake_kubernetes::{ApiServer, manifest};

use super::demo;
use steady::{Outage, Seen, Steady, client, hosts, put};

/// The bound for what is to be found after the server is back: 1.5 s, and a bit for a busy machine.
const SOON: Duration = Duration::from_secs(5);
/// How long a server that hangs can go unnoticed: 16 s, and a bit for a busy machine.
const HANG_NOTICED: Duration = Duration::from_secs(20);
/// How long it can go unnoticed that etcd was restored: 13 s, and a bit for a busy machine.
const ROLLBACK_NOTICED: Duration = Duration::from_secs(20);

async fn suffered(
    builder: waypost_fake_kubernetes::Builder,
    outage: Outage,
    lasting: Duration,
) -> Seen {
    let steady = Steady::begin(builder).await;
    let seen = steady.suffer(outage, lasting).await;
    assert!(seen.recovered_in <= SOON, "{outage:?}: {seen:?}");
    let (asked, failed) = steady.end();
    assert_eq!(failed, 0, "{failed} of {asked} look-ups failed");
    assert!(asked > 100, "{asked} look-ups");
    seen
}

/// Killed and started again, it knows nothing of former changes: 410 in the stream.
#[tokio::test]
async fn a_server_that_is_killed_is_noticed_at_once() {
    let lasting = Duration::from_secs(4);
    let seen = suffered(ApiServer::builder(), Outage::Killed, lasting).await;
    assert!(seen.stale_after.unwrap() < SOON, "{seen:?}");
    assert!(seen.age > lasting / 2, "{seen:?}");
}

#[tokio::test]
async fn a_server_that_freezes_is_noticed_by_its_pulse() {
    let seen = suffered(ApiServer::builder(), Outage::Frozen, HANG_NOTICED).await;
    assert!(seen.stale_after.is_some(), "{seen:?}");
    assert!(seen.age > Duration::from_secs(5), "{seen:?}");
}

#[tokio::test]
async fn without_etcd_the_instances_are_said_to_be_stale() {
    let seen = suffered(ApiServer::builder(), Outage::EtcdFrozen, HANG_NOTICED).await;
    assert!(seen.stale_after.is_some(), "{seen:?}");
}

#[tokio::test]
async fn a_server_that_says_503_is_asked_with_growing_pauses() {
    let steady = Steady::begin(ApiServer::builder()).await;
    // Cut off first, so that everything has to be opened anew.
    steady.server.kill().await;
    steady.server.faults().fail_with(Some(503));
    steady.server.restart().await.unwrap();
    steady.server.forget_requests();
    sleep(Duration::from_secs(5)).await;
    let requests = steady.server.requests();
    // Two watches with growing pauses, and a pulse about each second.
    assert!((3..=40).contains(&requests.len()), "{}", requests.len());
    assert!(requests.iter().all(|it| it.code == Some(503)));
    assert!(steady.now().await.unwrap().freshness().is_stale());
    put(&steady.server, "10.0.0.2");
    steady.server.faults().heal();
    let back = Instant::now();
    steady.until_only("10.0.0.2").await;
    assert!(back.elapsed() <= SOON, "{:?}", back.elapsed());
    assert_eq!(steady.end().1, 0);
}

#[tokio::test]
async fn a_server_that_ends_gracefully_tells_changes_until_its_watches_end() {
    let tail = Duration::from_secs(3);
    let steady = Steady::begin(ApiServer::builder().termination_tail(tail)).await;
    let ending = async {
        steady.server.terminate().await;
        steady.server.restart().await.unwrap();
        Instant::now()
    };
    let changing = async {
        sleep(Duration::from_millis(500)).await;
        put(&steady.server, "10.0.0.3");
        let told = steady.until(|it| hosts(it) == ["10.0.0.3"]).await;
        put(&steady.server, "10.0.0.2");
        told
    };
    let began = Instant::now();
    let (back, _) = tokio::join!(ending, changing);
    assert!(began.elapsed() >= tail);
    steady.until_only("10.0.0.2").await;
    assert!(back.elapsed() <= SOON, "{:?}", back.elapsed());
    assert_eq!(steady.end().1, 0);
}

#[tokio::test]
async fn a_server_that_is_down_at_the_start_is_found_when_it_comes() {
    let server = demo().await;
    put(&server, "10.0.0.1");
    server.kill().await;
    let client = client(&server);
    let refused = client.pick("web").await.unwrap_err().to_string();
    assert!(refused.contains(&server.address().to_string()), "{refused}");
    sleep(Duration::from_secs(3)).await;
    server.restart().await.unwrap();
    let back = Instant::now();
    timeout(SOON, client.wait_for("web"))
        .await
        .unwrap()
        .unwrap();
    assert!(back.elapsed() <= SOON);
}

/// A watch from a revision that is yet to come is 200 and silence.
#[tokio::test]
async fn an_etcd_that_was_restored_is_noticed_though_all_looks_well() {
    let steady = Steady::begin(ApiServer::builder()).await;
    let backup = steady.server.backup();
    put(&steady.server, "10.0.0.2");
    steady.until_only("10.0.0.2").await;
    for change in 0..50 {
        put(&steady.server, &format!("10.0.1.{change}"));
    }
    put(&steady.server, "10.0.0.3");
    steady.until_only("10.0.0.3").await;
    steady.server.restore(&backup).await.unwrap();
    until_restored(steady).await;
}

/// Nothing breaks: the server that has our watches hasn't heard of it, another one answers.
#[tokio::test]
async fn an_etcd_that_was_restored_behind_open_watches_is_noticed_too() {
    let steady = Steady::begin(ApiServer::builder()).await;
    let backup = steady.server.backup();
    for change in 0..50 {
        put(&steady.server, &format!("10.0.1.{change}"));
    }
    put(&steady.server, "10.0.0.3");
    steady.until_only("10.0.0.3").await;
    // Whatever is still on its way is silent, too.
    sleep(Duration::from_millis(100)).await;
    let watches = steady.server.open_watches();
    steady.server.restore_without_restart(&backup);
    let took = until_restored(steady).await;
    assert!(watches >= 2 && took > Duration::from_millis(50));
}

/// Those of the backup are there again in time, and it follows from there.
async fn until_restored(steady: Steady) -> Duration {
    let restored = Instant::now();
    steady.until_only("10.0.0.1").await;
    let took = restored.elapsed();
    assert!(took <= ROLLBACK_NOTICED, "{took:?}");
    put(&steady.server, "10.0.0.4");
    steady.until_only("10.0.0.4").await;
    assert_eq!(steady.end().1, 0);
    took
}

/// Nobody tells of a deletion across a 410: what a new list doesn't have is gone.
#[tokio::test]
async fn what_is_deleted_while_nobody_can_tell_is_gone_afterwards() {
    let steady = Steady::begin(ApiServer::builder()).await;
    let more = [manifest::endpoint("10.0.0.9")];
    let slice = manifest::slice("demo", "web", "web-2", &[("http", 80)], more);
    steady.server.put(&slice);
    steady.until(|it| hosts(it).len() == 2).await;
    steady.server.kill().await;
    steady.server.delete("endpointslices", "demo", "web-2");
    steady.server.restart().await.unwrap();
    let back = Instant::now();
    steady.until_only("10.0.0.1").await;
    assert!(back.elapsed() <= SOON, "{:?}", back.elapsed());
    assert_eq!(steady.end().1, 0);
}

/// The server cuts off who doesn't keep up; going on from the last revision loses nothing.
#[tokio::test]
async fn a_reader_that_is_cut_off_for_being_slow_loses_nothing() {
    let impatient = ApiServer::builder().slow_reader(Duration::from_millis(1), 200);
    let steady = Steady::begin(impatient).await;
    for change in 0..3000 {
        put(
            &steady.server,
            &format!("10.1.{}.{}", change / 200, change % 200),
        );
        if change % 100 == 0 {
            sleep(Duration::from_millis(1)).await;
        }
    }
    put(&steady.server, "10.0.0.2");
    // Watches that are cut off again and again are opened with growing pauses.
    steady.until_only("10.0.0.2").await;
    assert_eq!(steady.end().1, 0);
}

/// A server without WatchList, whose lists can't be gone on with in the middle.
#[tokio::test]
async fn lists_of_an_older_server_need_no_continue_and_no_etcd() {
    let server = demo().await;
    server.faults().disable_watch_list(true);
    server.put(&manifest::service("demo", "web", &[("http", 80)]));
    for slice in manifest::many_slices("demo", "web", 12, 60) {
        server.put(&slice);
    }
    server.faults().freeze_etcd(true);
    let client = client(&server);
    let found = timeout(SOON, client.wait_for("web"))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(found.ready().len(), 720);
    let lists = server.requests();
    let lists = lists
        .iter()
        .filter(|it| it.verb == "list" && it.code == Some(200));
    assert!(lists.clone().count() >= 2);
    assert!(
        lists
            .clone()
            .all(|it| it.query.contains("resourceVersion=0"))
    );
}

#[tokio::test]
async fn a_client_can_start_without_etcd() {
    let server = demo().await;
    put(&server, "10.0.0.1");
    server.faults().freeze_etcd(true);
    timeout(SOON, client(&server).wait_for("web"))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn a_namespace_that_is_deleted_takes_its_instances_along() {
    let server = ApiServer::builder()
        .namespace("demo")
        .namespace_deletion(Duration::ZERO)
        .start()
        .await
        .unwrap();
    put(&server, "10.0.0.1");
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
    let refused = timeout(SOON, gone).await.unwrap();
    assert!(refused.contains("has no instances"), "{refused}");
    // Who didn't know it hears that nobody does.
    let newcomer = self::client(&server);
    let refused = newcomer.pick("web").await.unwrap_err().to_string();
    assert!(refused.contains("is unknown"), "{refused}");
    let catalog = newcomer.directory().catalog().await.unwrap();
    assert_eq!(catalog.names().len(), 0);
    // One of the same name, later, is as good as any.
    put(&server, "10.0.0.2");
    timeout(SOON, client.wait_for("web"))
        .await
        .unwrap()
        .unwrap();
}

/// The load filter's refusal is no JSON, and no reason to ask again at once.
#[tokio::test]
async fn a_server_with_too_much_to_do_is_left_alone_for_as_long_as_it_says() {
    let server = demo().await;
    put(&server, "10.0.0.1");
    server.faults().fail_with(Some(429));
    let client = client(&server);
    let refused = client.pick("web").await.unwrap_err().to_string();
    assert!(refused.contains("429: Too many requests"), "{refused}");
    server.forget_requests();
    sleep(Duration::from_secs(3)).await;
    let asked = server.requests().len();
    // Two watches, each at least a second after the last time.
    assert!((1..=6).contains(&asked), "{asked} requests in 3 s");
    server.faults().heal();
    let found = client.wait_for("web");
    timeout(Duration::from_secs(60), found)
        .await
        .unwrap()
        .unwrap();
}

/// The API server of today with the etcd of yesterday.
#[tokio::test]
async fn a_streamed_list_that_fails_is_asked_for_in_the_old_way() {
    let server = demo().await;
    put(&server, "10.0.0.1");
    server.faults().fail_watch_list(true);
    timeout(SOON, client(&server).wait_for("web"))
        .await
        .unwrap()
        .unwrap();
}

/// One that is only mistyped can't be told from one that is empty.
#[tokio::test]
async fn an_absent_namespace_has_no_services() {
    let server = demo().await;
    put(&server, "10.0.0.1");
    let client = client(&server);
    let refused = client.pick("web.dmeo").await.unwrap_err().to_string();
    assert!(refused.contains("web.dmeo"), "{refused}");
    client.pick("web.demo").await.unwrap();
}

/// 403 from the start costs little, and the right is used soon after it is granted.
#[tokio::test]
async fn rights_that_come_and_go_leave_the_instances() {
    let server = demo().await;
    put(&server, "10.0.0.1");
    server.add_user("reader");
    let rules = manifest::read_rules(&["list", "watch"]);
    server.grant("reader", "demo", &rules);
    let kubeconfig = server.kubeconfig_of("reader").unwrap();
    let provider =
        waypost::provider::kubernetes::KubernetesProvider::builder().kubeconfig(kubeconfig);
    let provider = std::sync::Arc::new(provider.build().unwrap());
    let client = waypost::ServiceDiscoveryClient::new(provider);
    client.wait_for("web").await.unwrap();
    // An open watch goes on; after it was cut, nothing may be asked any more.
    server.revoke("reader", "demo");
    server.kill().await;
    server.restart().await.unwrap();
    server.forget_requests();
    sleep(Duration::from_secs(4)).await;
    client.pick("web").await.unwrap();
    let refused = server.requests();
    let watches = refused.iter().filter(|it| it.verb == "watch").count();
    assert!(refused.iter().all(|it| it.code == Some(403)), "{refused:?}");
    // Two watches, each after 0, 0.5, 1, 2 s at the most on average.
    assert!(watches <= 14, "{watches} watches in 4 s: {refused:?}");
    server.grant("reader", "demo", &rules);
    put(&server, "10.0.0.2");
    let found = async {
        loop {
            let found = client
                .directory()
                .lookup(&"web".parse().unwrap())
                .await
                .unwrap();
            if hosts(&found) == ["10.0.0.2"] && !found.freshness().is_stale() {
                break;
            }
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(60), found).await.unwrap();
    assert!((1..=2).contains(&server.open_watches()));
}
