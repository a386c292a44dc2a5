//! Directory, client and registrar with a real Consul and with the embedded registry.

mod cluster;
mod faults;
mod outage;
mod registration;
mod tokens;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::timeout;
use waypost::directory::{Directory, Subscription};
use waypost::provider::consul::ConsulProvider;
use waypost::provider::{Provider, ServiceAnswer};
use waypost::snapshot::Snapshot;
use waypost::{
    Check, Error, Registrar, ServiceDiscoveryClient, ServiceName, ServiceRegistration, Weight,
};
use waypost_agent::Agent;
use waypost_testkit::{Consul, free_ports};

/// The time limit for an event that a test expects. A cluster on a busy machine may need several
/// elections.
const TIMEOUT: Duration = Duration::from_secs(180);

/// A server of Consul's HTTP API.
enum Server {
    Consul(Consul),
    Embedded(Agent),
}

impl Server {
    async fn start_each() -> [Self; 2] {
        let agent = Agent::start().await.unwrap();
        [Self::Consul(Consul::start().await), Self::Embedded(agent)]
    }

    fn address(&self) -> String {
        match self {
            Self::Consul(consul) => consul.address(),
            Self::Embedded(agent) => agent.http_addr().to_string(),
        }
    }

    fn provider(&self) -> Arc<dyn Provider> {
        Arc::new(ConsulProvider::new(&self.address()).unwrap())
    }

    fn directory(&self) -> Directory {
        Directory::new(self.provider())
    }

    fn register(&self, registration: ServiceRegistration) -> Registrar {
        Registrar::start(self.provider(), registration).unwrap()
    }
}

fn web() -> ServiceName {
    ServiceName::new("web").unwrap()
}

fn registration(id: &str, port: u16) -> ServiceRegistration {
    ServiceRegistration::new("web", port).unwrap().id(id)
}

/// Waits for a snapshot that fulfils a condition.
async fn until(subscription: &mut Subscription<Snapshot>, condition: impl Fn(&Snapshot) -> bool) {
    let waiting = async { while !condition(&subscription.changed().await.clone()) {} };
    if timeout(TIMEOUT, waiting).await.is_err() {
        panic!("no such snapshot in time: {:?}", subscription.current());
    }
}

fn ids(snapshot: &Snapshot) -> Vec<&str> {
    snapshot
        .instances()
        .map(|instance| instance.id().as_str())
        .collect()
}

#[tokio::test]
async fn a_subscription_reports_registered_changed_and_deregistered_instances() {
    for server in Server::start_each().await {
        let directory = server.directory();
        let mut subscription = directory.subscribe(&web());
        until(&mut subscription, |snapshot| {
            snapshot.freshness().is_known()
        })
        .await;

        let first = server.register(registration("web-1", 1));
        until(&mut subscription, |snapshot| ids(snapshot) == ["web-1"]).await;
        let second = server.register(registration("web-2", 2));
        until(&mut subscription, |snapshot| {
            ids(snapshot) == ["web-1", "web-2"]
        })
        .await;

        let endpoint = subscription.current().endpoints()[0].clone();
        first.abandon();
        let again = server.register(registration("web-1", 1).weight(Weight::new(5)));
        until(&mut subscription, |snapshot| {
            snapshot.endpoints()[0].instance().weight() == Weight::new(5)
        })
        .await;
        // It is the same endpoint, so its counters continue.
        assert_eq!(
            endpoint.in_flight(),
            subscription.current().endpoints()[0].in_flight()
        );

        again.deregister().await.unwrap();
        until(&mut subscription, |snapshot| ids(snapshot) == ["web-2"]).await;
        second.deregister().await.unwrap();
        until(&mut subscription, |snapshot| ids(snapshot).is_empty()).await;
        let error = subscription.current().usable().unwrap_err();
        assert!(matches!(error, Error::NoInstances { .. }), "{error}");
    }
}

#[tokio::test]
async fn an_unhealthy_instance_is_listed_and_not_chosen() {
    for server in Server::start_each().await {
        // Nothing listens on this port, so the check fails.
        let [port] = free_ports();
        let check = Check::tcp().every(Duration::from_secs(1));
        let dead = server.register(registration("dead", port).check(check));
        dead.registered().await;
        let client = ServiceDiscoveryClient::new(server.provider());
        let error = client.discover_service("web").await.unwrap_err();
        assert!(
            matches!(error, Error::NoneHealthy { instances: 1, .. }),
            "{error}"
        );
        let message = error.to_string();
        let expected = "the instance of service \"web\" is not healthy, according to consul at";
        assert!(message.starts_with(expected), "{message}");

        let alive = server.register(registration("alive", 1));
        alive.registered().await;
        let mut subscription = client.directory().subscribe(&web());
        until(&mut subscription, |snapshot| !snapshot.ready().is_empty()).await;
        for _ in 0..10 {
            assert_eq!(client.pick("web").await.unwrap().id().as_str(), "alive");
        }
    }
}

#[tokio::test]
async fn an_instance_with_a_ttl_check_is_healthy_only_while_it_sends_heartbeats() {
    let run = async |server: Server| {
        // Long enough for heartbeats to arrive in time on a busy machine.
        let ttl = Check::ttl(Duration::from_secs(12));
        let registrar = server.register(registration("web-1", 1).check(ttl));
        registrar.registered().await;
        let directory = server.directory();
        let mut subscription = directory.subscribe(&web());
        until(&mut subscription, |snapshot| snapshot.usable().is_ok()).await;
        // Longer than the TTL, so only heartbeats keep it healthy.
        let kept = timeout(Duration::from_secs(15), async {
            while subscription.changed().await.usable().is_ok() {}
        });
        assert!(kept.await.is_err(), "critical although it sent heartbeats");
        registrar.abandon();
        until(&mut subscription, |snapshot| snapshot.usable().is_err()).await;
    };
    let [consul, embedded] = Server::start_each().await;
    tokio::join!(run(consul), run(embedded));
}

#[tokio::test]
async fn an_instance_is_registered_again_with_a_wiped_registry_and_lookups_never_fail() {
    let mut consul = Consul::start().await;
    let provider: Arc<dyn Provider> = Arc::new(ConsulProvider::new(&consul.address()).unwrap());
    let registrar = Registrar::start(Arc::clone(&provider), registration("web-1", 1)).unwrap();
    registrar.registered().await;
    let client = ServiceDiscoveryClient::new(provider);
    assert_eq!(
        client.service_url("web", "").await.unwrap(),
        "http://127.0.0.1:1"
    );
    let mut subscription = client.directory().subscribe(&web());

    consul.kill().await;
    until(&mut subscription, |snapshot| {
        snapshot.freshness().is_stale()
    })
    .await;
    assert_eq!(
        client.service_url("web", "").await.unwrap(),
        "http://127.0.0.1:1"
    );

    consul.restart().await;
    // The registry is empty at first; then the instance is registered again.
    until(&mut subscription, |snapshot| {
        !snapshot.freshness().is_stale() && ids(snapshot) == ["web-1"]
    })
    .await;
    registrar.deregister().await.unwrap();
}

#[tokio::test]
async fn a_registry_that_is_down_at_the_start_is_retried() {
    let [port] = free_ports();
    let address = format!("127.0.0.1:{port}");
    let provider: Arc<dyn Provider> = Arc::new(ConsulProvider::new(&address).unwrap());
    let client = ServiceDiscoveryClient::new(Arc::clone(&provider));
    let error = client.service_url("web", "").await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains(&address), "{error}");
    assert!(error.to_string().contains("refused"), "{error}");

    let registrar = Registrar::start(provider, registration("web-1", 1)).unwrap();
    let agent = Agent::builder()
        .http(address.parse().unwrap())
        .start()
        .await
        .unwrap();
    timeout(TIMEOUT, registrar.registered()).await.unwrap();
    timeout(TIMEOUT, client.wait_for("web"))
        .await
        .unwrap()
        .unwrap();
    agent.shutdown().await;
}

#[tokio::test]
async fn no_failure_of_the_registry_removes_an_instance() {
    let agent = Agent::start().await.unwrap();
    // A short wait, because an index that went backwards is noticed only at the end of a wait.
    let consul = ConsulProvider::builder()
        .address(&agent.url())
        .wait(Duration::from_secs(1));
    let provider: Arc<dyn Provider> = Arc::new(consul.build().unwrap());
    let registrar = Registrar::start(Arc::clone(&provider), registration("web-1", 1)).unwrap();
    registrar.registered().await;
    let directory = Directory::new(Arc::clone(&provider));
    let mut subscription = directory.subscribe(&web());
    until(&mut subscription, |snapshot| ids(snapshot) == ["web-1"]).await;

    agent.faults().fail(true);
    agent.faults().drop_watchers();
    until(&mut subscription, |snapshot| {
        snapshot.freshness().is_stale()
    })
    .await;
    assert_eq!(ids(&subscription.current()), ["web-1"]);
    let mut fresh = provider.watch(&web());
    assert!(fresh.next().await.unwrap().is_err());

    agent.faults().heal();
    until(&mut subscription, |snapshot| {
        !snapshot.freshness().is_stale()
    })
    .await;
    assert_eq!(ids(&subscription.current()), ["web-1"]);

    // An index that goes backwards means that the server was replaced: the watch starts over.
    agent.faults().reset_index();
    let other = Registrar::start(Arc::clone(&provider), registration("web-2", 2)).unwrap();
    until(&mut subscription, |snapshot| {
        ids(snapshot) == ["web-1", "web-2"]
    })
    .await;
    other.deregister().await.unwrap();
    until(&mut subscription, |snapshot| ids(snapshot) == ["web-1"]).await;
    assert!(matches!(
        provider.watch(&web()).next().await,
        Some(Ok(ServiceAnswer::Instances(_)))
    ));
}
