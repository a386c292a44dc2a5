//! A real Consul that is killed under load and comes back with nothing.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval, sleep};
use waypost::provider::Provider;
use waypost::provider::consul::ConsulProvider;
use waypost::{Registrar, ServiceDiscoveryClient, ServiceRegistration};
use waypost_testkit::Consul;

use crate::consul::{until, web};

/// `examples/outage.rs` does the same for a minute, and prints what it saw.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_lookups_a_second_notice_nothing_but_the_age() {
    let mut consul = Consul::start().await;
    let provider: Arc<dyn Provider> = Arc::new(ConsulProvider::new(&consul.address()).unwrap());
    let registration = ServiceRegistration::new("web", 80).unwrap();
    let registrar = Registrar::start(Arc::clone(&provider), registration).unwrap();
    registrar.registered().await;
    let client = ServiceDiscoveryClient::new(provider);
    client.pick("web").await.unwrap();

    let asking = tokio::spawn({
        let client = client.clone();
        async move {
            let mut each = interval(Duration::from_millis(1));
            each.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut asked = 0_u32;
            loop {
                each.tick().await;
                client.pick("web").await.unwrap();
                asked += 1;
                if client.directory().status()[0].reconnects() > 0 && asked.is_multiple_of(100) {
                    let found = client.directory().lookup(&web()).await.unwrap();
                    found.usable().unwrap();
                }
            }
        }
    });
    sleep(Duration::from_millis(200)).await;
    consul.kill().await;
    sleep(Duration::from_secs(6)).await;
    let found = client.directory().lookup(&web()).await.unwrap();
    assert!(found.freshness().age().unwrap() >= Duration::from_secs(5));
    consul.restart().await;
    let mut subscription = client.directory().subscribe(&web());
    until(&mut subscription, |found| !found.freshness().is_stale()).await;
    assert!(!asking.is_finished(), "a look-up failed");
    asking.abort();
    registrar.deregister().await.unwrap();
}
