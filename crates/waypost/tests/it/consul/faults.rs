//! Random network faults between the provider and Consul. The variable `SEED` selects other faults.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};
use waypost::directory::Directory;
use waypost::provider::Provider;
use waypost::provider::consul::ConsulProvider;
use waypost::{Registrar, ServiceRegistration};
use waypost_testkit::{Consul, Fault, FaultProxy};

use super::{TIMEOUT, ids, until, web};

fn random_fault(random: &mut fastrand::Rng) -> Fault {
    let bodies = [
        "null",
        "{}",
        "[{}]",
        "[{\"Node\": 1, \"Service\": []}]",
        "[[[[",
        "<html>502</html>",
        "[{\"Node\":{\"Node\":\"n\"},\"Service\":{\"ID\":\"x\",\"Port\":\"80\"}}]",
        "",
    ];
    match random.u8(0..8) {
        0 => Fault::Delay(Duration::from_millis(random.u64(0..300))),
        1 => Fault::Reset,
        2 => Fault::Truncate(random.usize(0..900)),
        3 => Fault::Respond(200, bodies[random.usize(..bodies.len())].into()),
        4 => Fault::Respond(
            random.choice([404, 429, 500, 502, 503]).unwrap_or(500),
            "no".into(),
        ),
        5 => Fault::Endless,
        6 => Fault::Trickle(Duration::from_millis(random.u64(1..20))),
        _ => Fault::Hang,
    }
}

#[tokio::test]
async fn no_network_fault_removes_an_instance_or_prevents_recovery() {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed: u64 = seed.unwrap_or(1);
    let mut random = fastrand::Rng::with_seed(seed);
    let consul = Consul::start().await;
    let direct: Arc<dyn Provider> = Arc::new(ConsulProvider::new(&consul.address()).unwrap());
    let register = |id: &str| {
        let registration = ServiceRegistration::new("web", 80).unwrap().id(id);
        Registrar::start(Arc::clone(&direct), registration).unwrap()
    };
    let (first, second) = (register("web-1"), register("web-2"));
    first.registered().await;
    second.registered().await;

    let proxy = FaultProxy::start(consul.address()).await;
    let through = ConsulProvider::builder()
        .address(&proxy.address())
        .wait(Duration::from_secs(1));
    let through: Arc<dyn Provider> = Arc::new(through.build().unwrap());
    let directory = Directory::new(Arc::clone(&through));
    let mut subscription = directory.subscribe(&web());
    until(&mut subscription, |found| ids(found).len() == 2).await;

    for round in 0..25 {
        let fault = random_fault(&mut random);
        proxy.inject(fault.clone());
        let duration = Duration::from_millis(random.u64(100..700));
        let watching = async {
            loop {
                let found = subscription.changed().await;
                let context = format!("seed {seed}, round {round}, {fault:?}: {found:?}");
                assert_eq!(ids(&found), ["web-1", "web-2"], "{context}");
            }
        };
        // This only ends by the timeout.
        let _: Result<(), _> = timeout(duration, watching).await;
    }

    proxy.inject(Fault::None);
    // The proxy closes connections when the fault changes, so a hanging request doesn't delay this.
    until(&mut subscription, |found| !found.freshness().is_stale()).await;
    let third = register("web-3");
    until(&mut subscription, |found| ids(found).len() == 3).await;

    // A registration that fails at first succeeds in the end.
    let registration = ServiceRegistration::new("web", 81).unwrap().id("web-4");
    proxy.inject(Fault::Respond(500, "No cluster leader".into()));
    let fourth = Registrar::start(through, registration).unwrap();
    sleep(Duration::from_millis(300)).await;
    proxy.inject(Fault::None);
    timeout(TIMEOUT, fourth.registered()).await.unwrap();
    until(&mut subscription, |found| ids(found).len() == 4).await;
    drop((first, second, third, fourth));
}
