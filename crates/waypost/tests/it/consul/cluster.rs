//! The loss of the leader, in a cluster of three servers and a client agent.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};
use waypost::provider::Provider;
use waypost::provider::consul::ConsulProvider;
use waypost::{Check, Registrar, ServiceDiscoveryClient, ServiceRegistration};
use waypost_testkit::Cluster;

use super::{TIMEOUT, ids, until, web};

#[tokio::test]
async fn the_loss_of_the_leader_fails_no_lookup_and_registrations_succeed_in_the_end() {
    let mut cluster = Cluster::start().await;
    let consul = ConsulProvider::builder()
        .address(&cluster.client().address())
        .wait(Duration::from_secs(5));
    let provider: Arc<dyn Provider> = Arc::new(consul.build().unwrap());
    let register = |id: &str, port: u16| {
        let registration = ServiceRegistration::new("web", port).unwrap().id(id);
        let registration = registration.check(Check::ttl(Duration::from_secs(20)));
        Registrar::start(Arc::clone(&provider), registration).unwrap()
    };
    let first = register("web-1", 1);
    timeout(TIMEOUT, first.registered()).await.unwrap();
    let client = ServiceDiscoveryClient::new(Arc::clone(&provider));
    let mut subscription = client.directory().subscribe(&web());
    until(&mut subscription, |found| found.usable().is_ok()).await;

    let killed = cluster.kill_leader().await;
    let started = Instant::now();
    // Some instances are registered while there is no leader, others when there is a new one. Each
    // registration is retried until it succeeds.
    let mut others = Vec::new();
    let expected: Vec<_> = (1..=9).map(|number| format!("web-{number}")).collect();
    let mut lookups = 0;
    while ids(&client.directory().lookup(&web()).await.unwrap()) != expected {
        client.pick("web").await.unwrap();
        if lookups % 20 == 0 && others.len() < 8 {
            let number = others.len() + 2;
            others.push(register(&format!("web-{number}"), number as u16));
        }
        lookups += 1;
        assert!(
            started.elapsed() < TIMEOUT,
            "not all instances are registered"
        );
        sleep(Duration::from_millis(5)).await;
    }
    assert!(lookups > 100, "{lookups}");

    // A restarted server may be behind; its answers must not be used until it has caught up.
    cluster.restart(killed).await;
    for _ in 0..100 {
        let found = client.directory().lookup(&web()).await.unwrap();
        assert_eq!(ids(&found), expected);
        sleep(Duration::from_millis(10)).await;
    }
    for other in others {
        other.deregister().await.unwrap();
    }
    until(&mut subscription, |found| ids(found) == ["web-1"]).await;
    first.deregister().await.unwrap();
}
