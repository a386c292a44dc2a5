//! Active checks by the client: ejection, readmission, and when checking starts and ends.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::time::{Instant, advance, sleep};
use waypost::balance::{RoundRobin, Selection};
use waypost::directory::{Directory, DirectoryOptions};
use waypost::outlier::{BalanceEvent, EjectionCause};
use waypost::provider::{MemoryProvider, ServiceAnswer};
use waypost::{ActiveCheck, Balancer, Health, Instance};
use waypost_testkit::free_ports;

use super::fixture::{instance, plain, settle};
use crate::scripted::{ScriptedProvider, auth};

/// Checks that pass unless the test makes them fail, and the times at which they ran.
#[derive(Clone, Default)]
struct Checks {
    failing: Arc<Mutex<BTreeSet<String>>>,
    times: Arc<Mutex<BTreeMap<String, Vec<Instant>>>>,
}

impl Checks {
    fn check(&self) -> ActiveCheck {
        let checks = self.clone();
        ActiveCheck::custom(move |instance| {
            let id = instance.id().to_string();
            let fails = checks.failing.lock().unwrap().contains(&id);
            let mut times = checks.times.lock().unwrap();
            times.entry(id).or_default().push(Instant::now());
            async move {
                if fails {
                    Err("not ready".into())
                } else {
                    Ok(())
                }
            }
        })
    }

    fn fail(&self, id: &str) {
        self.failing.lock().unwrap().insert(id.into());
    }

    fn pass(&self, id: &str) {
        self.failing.lock().unwrap().remove(id);
    }

    fn count(&self, id: &str) -> usize {
        self.times.lock().unwrap().get(id).map_or(0, Vec::len)
    }
}

async fn balancer(
    script: &ScriptedProvider,
    instances: Vec<Arc<Instance>>,
    check: ActiveCheck,
) -> (Directory, Balancer) {
    script.set_first_item(Ok(ServiceAnswer::Instances(instances)));
    let mut options = DirectoryOptions::default();
    options.active_check = Some(check);
    let directory = Directory::with_options(Arc::new(script.clone()), options);
    let balancer = Balancer::new(&directory, &auth(), Box::new(RoundRobin::new()));
    balancer.ready().await.unwrap();
    (directory, balancer)
}

fn picked(balancer: &Balancer) -> BTreeSet<String> {
    let picks = (0..100).map(|_| balancer.pick().unwrap().id().to_string());
    picks.collect()
}

/// Advances the clock in steps, so that each timer fires when it is due.
async fn advance_in_steps(seconds: u64) {
    for _ in 0..seconds * 10 {
        advance(Duration::from_millis(100)).await;
        settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn three_failed_checks_eject_and_two_passing_checks_readmit() {
    let (checks, script) = (Checks::default(), ScriptedProvider::default());
    let (_directory, balancer) = balancer(&script, plain(&["a", "b", "c"]), checks.check()).await;
    let mut events = balancer.events();
    advance_in_steps(31).await;
    assert_eq!(picked(&balancer).len(), 3);
    let before = checks.count("b");
    checks.fail("b");
    while checks.count("b") < before + 2 {
        advance_in_steps(1).await;
    }
    assert_eq!(picked(&balancer).len(), 3, "two failures are not enough");
    while checks.count("b") < before + 3 {
        advance_in_steps(1).await;
    }
    assert!(!picked(&balancer).contains("b"));
    let ejected = BalanceEvent::Ejected {
        instance: "b".into(),
        cause: EjectionCause::ActiveCheck,
        seconds: None,
        times: 0,
    };
    assert_eq!(events.next().await, Some(ejected));
    let explanation = balancer.explain();
    let b = &explanation.instances[1];
    assert_eq!(b.selection, Selection::Ejected);
    let (ejection, check) = (b.ejection.as_ref().unwrap(), b.check.as_ref().unwrap());
    assert_eq!(ejection.cause, Some(EjectionCause::ActiveCheck));
    assert_eq!(ejection.seconds_left, None);
    assert_eq!(check.failure.as_deref(), Some("not ready"));
    assert!(!check.passing);

    // The ejection doesn't expire: no probe is sent while the checks fail.
    advance_in_steps(600).await;
    assert!(!picked(&balancer).contains("b"));
    assert_eq!(balancer.counters().ejected_active_check, 1);

    let before = checks.count("b");
    checks.pass("b");
    while checks.count("b") < before + 1 {
        advance_in_steps(1).await;
    }
    assert!(!picked(&balancer).contains("b"), "one pass is not enough");
    while checks.count("b") < before + 2 {
        advance_in_steps(1).await;
    }
    assert!(picked(&balancer).contains("b"));
    let instance = "b".into();
    assert_eq!(
        events.next().await,
        Some(BalanceEvent::Returned { instance })
    );
    let counters = balancer.counters();
    assert_eq!((counters.ejected_now, counters.returned), (0, 1));
    assert!(counters.checks_failed > 3 && counters.checks_passed > 10);
}

/// Lets requests to `id` fail until it is ejected.
async fn eject(balancer: &Balancer, id: &str) {
    loop {
        let lease = balancer.pick().unwrap().lease();
        if lease.id().as_str() == id {
            lease.failed();
        }
        settle().await;
        if !picked(balancer).contains(id) {
            break;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn failing_checks_prolong_an_ejection_for_failed_requests() {
    let (checks, script) = (Checks::default(), ScriptedProvider::default());
    let (_directory, balancer) = balancer(&script, plain(&["a", "b", "c"]), checks.check()).await;
    checks.fail("b");
    while checks.count("b") < 2 {
        advance_in_steps(1).await;
    }
    eject(&balancer, "b").await;
    let cause = || {
        balancer.explain().instances[1]
            .ejection
            .as_ref()
            .unwrap()
            .cause
    };
    assert_eq!(cause(), Some(EjectionCause::ConsecutiveFailures));
    while checks.count("b") < 3 {
        advance_in_steps(1).await;
    }
    assert_eq!(cause(), Some(EjectionCause::ActiveCheck));
    advance_in_steps(60).await;
    let selection = || balancer.explain().instances[1].selection;
    assert_eq!(selection(), Selection::Ejected);
    checks.pass("b");
    advance_in_steps(25).await;
    assert_eq!(selection(), Selection::Used);
}

#[tokio::test(start_paused = true)]
async fn passing_checks_do_not_shorten_an_ejection_for_failed_requests() {
    let (checks, script) = (Checks::default(), ScriptedProvider::default());
    let (_directory, balancer) = balancer(&script, plain(&["a", "b", "c"]), checks.check()).await;
    eject(&balancer, "b").await;
    let before = checks.count("b");
    advance_in_steps(25).await;
    assert!(
        checks.count("b") >= before + 2,
        "an ejected endpoint is checked"
    );
    assert_eq!(
        balancer.explain().instances[1].selection,
        Selection::Ejected
    );
    advance_in_steps(10).await;
    assert_eq!(
        balancer.explain().instances[1].selection,
        Selection::Probing
    );
}

#[tokio::test(start_paused = true)]
async fn balancers_share_one_check_per_interval_until_the_service_is_unused() {
    let (checks, script) = (Checks::default(), ScriptedProvider::default());
    let ids = ["a", "b", "c", "d", "e", "f"];
    let (directory, first) = balancer(&script, plain(&ids), checks.check()).await;
    let more: Vec<_> = (0..5)
        .map(|_| Balancer::new(&directory, &auth(), Box::new(RoundRobin::new())))
        .collect();
    advance_in_steps(200).await;
    let all_times = checks.times.lock().unwrap().clone();
    for times in all_times.values() {
        assert!((18..=23).contains(&times.len()), "{} checks", times.len());
        let gaps: Vec<_> = times
            .windows(2)
            .map(|pair| (pair[1] - pair[0]).as_secs_f64())
            .collect();
        assert!(
            gaps.iter().all(|gap| (8.9..=11.2).contains(gap)),
            "{gaps:?}"
        );
        assert!(
            gaps.iter().any(|gap| (gap - 10.0).abs() > 0.2),
            "no jitter: {gaps:?}"
        );
    }
    // The first checks don't all run at the same time.
    let first_times: BTreeSet<_> = all_times.values().map(|times| times[0]).collect();
    assert!(first_times.len() > 1, "all start at the same time");

    // Removed and critical instances are not checked.
    script.send(Ok(ServiceAnswer::Instances(vec![
        instance("a", |i| i),
        instance("b", |i| i.health(Health::Critical)),
    ])));
    settle().await;
    let (a, b) = (checks.count("a"), checks.count("b"));
    advance_in_steps(40).await;
    assert!(checks.count("a") > a);
    assert_eq!(checks.count("b"), b);

    drop((first, more));
    // The directory still exists; it closes the watch after at most twice the idle time.
    advance_in_steps(650).await;
    let after = checks.count("a");
    advance_in_steps(60).await;
    assert_eq!(checks.count("a"), after, "checked although unused");
}

#[tokio::test(start_paused = true)]
async fn checks_eject_at_most_half_and_their_ejections_end_when_checking_ends() {
    let (checks, script) = (Checks::default(), ScriptedProvider::default());
    let ids = ["a", "b", "c", "d"];
    let (_directory, balancer) = balancer(&script, plain(&ids), checks.check()).await;
    ids.iter().for_each(|id| checks.fail(id));
    advance_in_steps(120).await;
    let counters = balancer.counters();
    assert_eq!(counters.ejected_now, 2);
    assert!(counters.ejections_overflow > 0);
    assert_eq!(picked(&balancer).len(), 2);
    // Once the instances are critical in the registry, they are no longer checked or ejected.
    let all = |health: Health| {
        let one = |id: &&str| instance(id, |i| i.health(health));
        ids.iter().map(one).collect::<Vec<_>>()
    };
    script.send(Ok(ServiceAnswer::Instances(all(Health::Critical))));
    settle().await;
    assert_eq!(balancer.counters().ejected_now, 0);
    ids.iter().for_each(|id| checks.pass(id));
    script.send(Ok(ServiceAnswer::Instances(all(Health::Passing))));
    settle().await;
    assert_eq!(picked(&balancer).len(), 4);
}

/// Serves `/health` until the task is aborted.
async fn serve(listener: TcpListener) -> tokio::task::JoinHandle<()> {
    let app = axum::Router::new().route("/health", axum::routing::get(async || "ok"));
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() })
}

#[tokio::test]
async fn http_checks_eject_a_dead_server_and_readmit_it_after_a_restart() {
    let memory = MemoryProvider::new();
    let (mut servers, mut addresses) = (Vec::new(), Vec::new());
    for id in ["a", "b"] {
        // A port that stays free while the server is down.
        let [port] = free_ports();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let listener = TcpListener::bind(address).await.unwrap();
        let builder = Instance::builder(auth(), "127.0.0.1".parse().unwrap(), address.port());
        memory.insert(builder.id(id).build().unwrap());
        addresses.push(address);
        servers.push(serve(listener).await);
    }
    let every = Duration::from_millis(100);
    let check = ActiveCheck::http("/health").unwrap().every(every);
    let check = check.timeout(Duration::from_secs(60));
    let mut options = DirectoryOptions::default();
    options.active_check = Some(check.clone());
    let directory = Directory::with_options(Arc::new(memory), options);
    let balancer = Balancer::new(&directory, &auth(), Box::new(RoundRobin::new()));
    balancer.ready().await.unwrap();
    let until = async |ejected: u64| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while balancer.counters().ejected_now != ejected || balancer.counters().checks_passed < 4 {
            assert!(Instant::now() < deadline, "{:?}", balancer.counters());
            sleep(Duration::from_millis(10)).await;
        }
    };
    until(0).await;
    assert_eq!(balancer.counters().checks_failed, 0);
    servers[1].abort();
    until(1).await;
    // A check that was under way when the server ended may have seen another error.
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let explanation = balancer.explain();
        let dead = explanation.instances[1].check.as_ref().unwrap();
        let failure = dead.failure.as_deref().unwrap();
        if failure.contains("refused") {
            break;
        }
        assert!(Instant::now() < deadline, "{failure}");
        sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(picked(&balancer), ["a".to_owned()].into());
    let listener = TcpListener::bind(addresses[1]).await.unwrap();
    servers[1] = serve(listener).await;
    until(0).await;
    assert_eq!(picked(&balancer).len(), 2);

    // The error names a status other than 2xx.
    let other = ActiveCheck::http("/nothing").unwrap();
    let endpoints = balancer.snapshot();
    let first = endpoints.instances().next().unwrap();
    let error = other.check(first).await.unwrap_err();
    assert!(error.contains("404"), "{error}");
    assert!(ActiveCheck::tcp().check(first).await.is_ok());
    assert!(ActiveCheck::tcp().port("admin").check(first).await.is_err());
    assert!(ActiveCheck::http("health").is_err());

    // Parsed from the value of a setting.
    let parse = |text: &str| text.parse::<ActiveCheck>();
    assert!(parse("http:/health").unwrap().check(first).await.is_ok());
    assert!(parse("tcp").unwrap().check(first).await.is_ok());
    assert!(parse("https:/health").is_err());
    // The server doesn't speak TLS.
    let host = "127.0.0.1".parse().unwrap();
    let encrypted = Instance::builder(auth(), host, first.port()).scheme("https");
    let encrypted = Arc::new(encrypted.build().unwrap());
    assert!(check.check(&encrypted).await.is_err());
}
