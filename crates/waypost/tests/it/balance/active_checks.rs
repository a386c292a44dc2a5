//! Checks that the client makes itself: who is ejected by them, who comes back, and when they end.

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

/// Instances whose checks pass unless the test says otherwise.
#[derive(Clone, Default)]
struct World {
    sick: Arc<Mutex<BTreeSet<String>>>,
    checked: Arc<Mutex<BTreeMap<String, Vec<Instant>>>>,
}

impl World {
    fn check(&self) -> ActiveCheck {
        let world = self.clone();
        ActiveCheck::custom(move |instance| {
            let id = instance.id().to_string();
            let sick = world.sick.lock().unwrap().contains(&id);
            let mut checked = world.checked.lock().unwrap();
            checked.entry(id).or_default().push(Instant::now());
            async move {
                if sick {
                    Err("it is sick".into())
                } else {
                    Ok(())
                }
            }
        })
    }

    fn sicken(&self, id: &str) {
        self.sick.lock().unwrap().insert(id.into());
    }

    fn heal(&self, id: &str) {
        self.sick.lock().unwrap().remove(id);
    }

    fn count(&self, id: &str) -> usize {
        self.checked.lock().unwrap().get(id).map_or(0, Vec::len)
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

/// Lets so much time go by, in steps, so that every timer runs when it is due.
async fn pass(seconds: u64) {
    for _ in 0..seconds * 10 {
        advance(Duration::from_millis(100)).await;
        settle().await;
    }
}

#[tokio::test(start_paused = true)]
async fn three_failed_checks_eject_and_two_passing_checks_readmit() {
    let (world, script) = (World::default(), ScriptedProvider::default());
    let (_directory, balancer) = balancer(&script, plain(&["a", "b", "c"]), world.check()).await;
    let mut events = balancer.events();
    pass(31).await;
    assert_eq!(picked(&balancer).len(), 3);
    let before = world.count("b");
    world.sicken("b");
    while world.count("b") < before + 2 {
        pass(1).await;
    }
    assert_eq!(picked(&balancer).len(), 3, "two failures are not enough");
    while world.count("b") < before + 3 {
        pass(1).await;
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
    assert_eq!(check.failure.as_deref(), Some("it is sick"));
    assert!(!check.passing);

    // Neither time nor a lucky request ends it: no request is risked while its checks fail.
    pass(600).await;
    assert!(!picked(&balancer).contains("b"));
    assert_eq!(balancer.counters().ejected_active_check, 1);

    let before = world.count("b");
    world.heal("b");
    while world.count("b") < before + 1 {
        pass(1).await;
    }
    assert!(!picked(&balancer).contains("b"), "one is not enough");
    while world.count("b") < before + 2 {
        pass(1).await;
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

#[tokio::test(start_paused = true)]
async fn passing_checks_do_not_shorten_an_ejection_for_failed_requests() {
    let (world, script) = (World::default(), ScriptedProvider::default());
    let (_directory, balancer) = balancer(&script, plain(&["a", "b", "c"]), world.check()).await;
    loop {
        let lease = balancer.pick().unwrap().lease();
        if lease.id().as_str() == "b" {
            lease.failed();
        }
        settle().await;
        if !picked(&balancer).contains("b") {
            break;
        }
    }
    let before = world.count("b");
    pass(25).await;
    assert!(
        world.count("b") >= before + 2,
        "it is checked while ejected"
    );
    assert_eq!(
        balancer.explain().instances[1].selection,
        Selection::Ejected
    );
    pass(10).await;
    assert_eq!(
        balancer.explain().instances[1].selection,
        Selection::Probing
    );
}

#[tokio::test(start_paused = true)]
async fn balancers_share_one_check_per_interval_until_the_service_is_unused() {
    let (world, script) = (World::default(), ScriptedProvider::default());
    let ids = ["a", "b", "c", "d", "e", "f"];
    let (directory, first) = balancer(&script, plain(&ids), world.check()).await;
    let more: Vec<_> = (0..5)
        .map(|_| Balancer::new(&directory, &auth(), Box::new(RoundRobin::new())))
        .collect();
    pass(200).await;
    let checked = world.checked.lock().unwrap().clone();
    for times in checked.values() {
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
    // Two may begin together, but not all of them.
    let begun: BTreeSet<_> = checked.values().map(|times| times[0]).collect();
    assert!(begun.len() > 1, "they begin at different times");

    // One that leaves, or that the registry calls sick, is not checked.
    script.send(Ok(ServiceAnswer::Instances(vec![
        instance("a", |i| i),
        instance("b", |i| i.health(Health::Critical)),
    ])));
    settle().await;
    let (a, b) = (world.count("a"), world.count("b"));
    pass(40).await;
    assert!(world.count("a") > a);
    assert_eq!(world.count("b"), b);

    drop((first, more));
    // The directory itself lives on; the service is dropped when nobody asked for two idle times.
    pass(650).await;
    let after = world.count("a");
    pass(60).await;
    assert_eq!(world.count("a"), after, "nobody asks any more");
}

#[tokio::test(start_paused = true)]
async fn checks_eject_at_most_half_and_their_ejections_end_when_checking_ends() {
    let (world, script) = (World::default(), ScriptedProvider::default());
    let ids = ["a", "b", "c", "d"];
    let (_directory, balancer) = balancer(&script, plain(&ids), world.check()).await;
    ids.iter().for_each(|id| world.sicken(id));
    pass(120).await;
    let counters = balancer.counters();
    assert_eq!(counters.ejected_now, 2);
    assert!(counters.spared > 0);
    assert_eq!(picked(&balancer).len(), 2);
    // What checks said counts no longer when the registry has seen it fail.
    let told = |health: Health| {
        let one = |id: &&str| instance(id, |i| i.health(health));
        ids.iter().map(one).collect::<Vec<_>>()
    };
    script.send(Ok(ServiceAnswer::Instances(told(Health::Critical))));
    settle().await;
    assert_eq!(balancer.counters().ejected_now, 0);
    ids.iter().for_each(|id| world.heal(id));
    script.send(Ok(ServiceAnswer::Instances(told(Health::Passing))));
    settle().await;
    assert_eq!(picked(&balancer).len(), 4);
}

/// Serves 200 at `/health` as long as the handle lives.
async fn serve(listener: TcpListener) -> tokio::task::JoinHandle<()> {
    let app = axum::Router::new().route("/health", axum::routing::get(async || "well"));
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() })
}

#[tokio::test]
async fn http_checks_eject_a_dead_server_and_readmit_it_after_a_restart() {
    let memory = MemoryProvider::new();
    let (mut servers, mut addresses) = (Vec::new(), Vec::new());
    for id in ["a", "b"] {
        // One that nobody takes while the server is down.
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
    let explanation = balancer.explain();
    let dead = explanation.instances[1].check.as_ref().unwrap();
    let failure = dead.failure.as_deref().unwrap();
    assert!(failure.contains("refused"), "{failure}");
    assert_eq!(picked(&balancer), ["a".to_owned()].into());
    let listener = TcpListener::bind(addresses[1]).await.unwrap();
    servers[1] = serve(listener).await;
    until(0).await;
    assert_eq!(picked(&balancer).len(), 2);

    // An answer that is none of 2xx says which.
    let other = ActiveCheck::http("/nothing").unwrap();
    let endpoints = balancer.snapshot();
    let first = endpoints.instances().next().unwrap();
    let error = other.check(first).await.unwrap_err();
    assert!(error.contains("404"), "{error}");
    assert!(ActiveCheck::tcp().check(first).await.is_ok());
    assert!(ActiveCheck::tcp().port("admin").check(first).await.is_err());
    assert!(ActiveCheck::http("health").is_err());
}
