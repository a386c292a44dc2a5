//! The provider against a real Consul and against the embedded registry: what holds for one holds
//! for the other.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::timeout;
use waypost::directory::{Directory, Subscription};
use waypost::provider::consul::ConsulProvider;
use waypost::provider::{Provider, ServiceAnswer};
use waypost::snapshot::Snapshot;
use waypost::{
    Check, Error, Health, InstanceId, Registrar, ServiceDiscoveryClient, ServiceName,
    ServiceRegistration, Weight,
};
use waypost_agent::Agent;
use waypost_testkit::{Consul, free_ports};

enum Registry {
    Real(Consul),
    Embedded(Agent),
}

impl Registry {
    async fn each() -> [Self; 2] {
        [Self::Real(Consul::start().await), Self::embedded().await]
    }

    async fn embedded() -> Self {
        Self::Embedded(Agent::start().await.unwrap())
    }

    fn address(&self) -> String {
        match self {
            Self::Real(consul) => consul.address(),
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

pub(crate) fn web() -> ServiceName {
    ServiceName::new("web").unwrap()
}

fn registration(id: &str, port: u16) -> ServiceRegistration {
    ServiceRegistration::new("web", port).unwrap().id(id)
}

/// Follows a service until it is as wanted; more than a minute is a failure.
pub(crate) async fn until(
    subscription: &mut Subscription<Snapshot>,
    wanted: impl Fn(&Snapshot) -> bool,
) {
    let following = async { while !wanted(&subscription.changed().await.clone()) {} };
    if timeout(Duration::from_secs(60), following).await.is_err() {
        panic!(
            "not as wanted within a minute: {:?}",
            subscription.current()
        );
    }
}

pub(crate) fn ids(snapshot: &Snapshot) -> Vec<&str> {
    snapshot
        .instances()
        .map(|instance| instance.id().as_str())
        .collect()
}

#[tokio::test]
async fn what_is_registered_is_found_with_all_that_was_said_of_it() {
    for registry in Registry::each().await {
        let mut said = registration("web-1", 8080)
            .host("10.1.2.3".parse().unwrap())
            .scheme("https")
            .path_prefix("/v2")
            .version("2.0.0")
            .tag("api")
            .tag("blue")
            .meta("team", "search")
            .zone("eu-1")
            .weight(Weight::new(7))
            .named_port("admin", 9000);
        said = said.check(Check::ttl(Duration::from_secs(30)));
        let registrar = registry.register(said);
        registrar.registered().await;

        let found = registry.directory().lookup(&web()).await.unwrap();
        let instance = found.instances().next().unwrap();
        assert_eq!(instance.id().as_str(), "web-1");
        assert_eq!(instance.url(), "https://10.1.2.3:8080/v2");
        assert_eq!(instance.health(), Health::Passing);
        assert_eq!(instance.version(), Some("2.0.0"));
        assert_eq!(instance.tags().collect::<Vec<_>>(), ["api", "blue"]);
        assert_eq!(instance.meta("team"), Some("search"));
        assert_eq!(instance.zone(), Some("eu-1"));
        assert_eq!(instance.weight(), Weight::new(7));
        assert_eq!(instance.named_port("admin"), Some(9000));

        let names = registry.directory().catalog().await.unwrap();
        assert!(names.names().contains("web"), "{:?}", names.names());

        registrar.deregister().await.unwrap();
        let gone = registry.directory().lookup(&web()).await.unwrap();
        assert!(matches!(gone.usable(), Err(Error::UnknownService { .. })));
    }
}

#[tokio::test]
async fn a_watch_tells_of_coming_changing_and_going() {
    for registry in Registry::each().await {
        let directory = registry.directory();
        let mut subscription = directory.subscribe(&web());
        until(&mut subscription, |snapshot| {
            snapshot.freshness().is_known()
        })
        .await;

        let first = registry.register(registration("web-1", 1));
        until(&mut subscription, |snapshot| ids(snapshot) == ["web-1"]).await;
        let second = registry.register(registration("web-2", 2));
        until(&mut subscription, |snapshot| {
            ids(snapshot) == ["web-1", "web-2"]
        })
        .await;

        let lease = subscription.current().endpoints()[0].clone();
        first.abandon();
        let again = registry.register(registration("web-1", 1).weight(Weight::new(5)));
        until(&mut subscription, |snapshot| {
            snapshot.endpoints()[0].instance().weight() == Weight::new(5)
        })
        .await;
        // The same endpoint, changed: what is counted of it goes on.
        assert_eq!(
            lease.in_flight(),
            subscription.current().endpoints()[0].in_flight()
        );

        again.deregister().await.unwrap();
        until(&mut subscription, |snapshot| ids(snapshot) == ["web-2"]).await;
        second.deregister().await.unwrap();
        until(&mut subscription, |snapshot| ids(snapshot).is_empty()).await;
        let nobody = subscription.current().usable().unwrap_err();
        assert!(matches!(nobody, Error::NoInstances { .. }), "{nobody}");
    }
}

#[tokio::test]
async fn an_unhealthy_instance_is_listed_and_not_chosen() {
    for registry in Registry::each().await {
        // Nobody listens on this port, so the check finds nobody.
        let [port] = free_ports();
        let check = Check::tcp().every(Duration::from_secs(1));
        let dead = registry.register(registration("dead", port).check(check));
        dead.registered().await;
        let client = ServiceDiscoveryClient::new(registry.provider());
        let error = client.discover_service("web").await.unwrap_err();
        assert!(
            matches!(error, Error::NoneHealthy { instances: 1, .. }),
            "{error}"
        );

        let alive = registry.register(registration("alive", 1));
        alive.registered().await;
        let mut subscription = client.directory().subscribe(&web());
        until(&mut subscription, |snapshot| !snapshot.ready().is_empty()).await;
        for _ in 0..10 {
            assert_eq!(client.pick("web").await.unwrap().id().as_str(), "alive");
        }
    }
}

#[tokio::test]
async fn a_ttl_is_kept_alive_by_heartbeats_and_runs_out_without() {
    let lives_and_dies = async |registry: Registry| {
        // Long enough that no heartbeat is late on a busy machine.
        let ttl = Check::ttl(Duration::from_secs(3));
        let registrar = registry.register(registration("web-1", 1).check(ttl));
        registrar.registered().await;
        let directory = registry.directory();
        let mut subscription = directory.subscribe(&web());
        until(&mut subscription, |snapshot| snapshot.usable().is_ok()).await;
        // Twice the TTL: only heartbeats keep it.
        let kept = timeout(Duration::from_secs(6), async {
            while subscription.changed().await.usable().is_ok() {}
        });
        assert!(kept.await.is_err(), "lost although it sent heartbeats");
        registrar.abandon();
        until(&mut subscription, |snapshot| snapshot.usable().is_err()).await;
    };
    let [real, embedded] = Registry::each().await;
    tokio::join!(lives_and_dies(real), lives_and_dies(embedded));
}

#[tokio::test]
async fn a_registry_that_lost_everything_has_us_back_and_lookups_never_fail() {
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
    // First the empty answer of a registry that knows nothing, then we are back.
    until(&mut subscription, |snapshot| {
        !snapshot.freshness().is_stale() && ids(snapshot) == ["web-1"]
    })
    .await;
    registrar.deregister().await.unwrap();
}

#[tokio::test]
async fn a_registry_that_is_down_at_the_start_is_waited_for() {
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
    timeout(Duration::from_secs(60), registrar.registered())
        .await
        .unwrap();
    timeout(Duration::from_secs(60), client.wait_for("web"))
        .await
        .unwrap()
        .unwrap();
    agent.shutdown().await;
}

#[tokio::test]
async fn odd_ids_and_tags_arrive_as_they_were_sent() {
    for registry in Registry::each().await {
        let id = "ä b/c?d#e%20&f";
        let registrar = registry.register(registration(id, 1).tag("a,b \"c\""));
        registrar.registered().await;
        let found = registry.directory().lookup(&web()).await.unwrap();
        assert_eq!(ids(&found), [id]);
        assert!(found.instances().next().unwrap().has_tag("a,b \"c\""));
        registrar.deregister().await.unwrap();
    }
}

#[tokio::test]
async fn deregistering_what_is_not_there_is_no_error() {
    for registry in Registry::each().await {
        let provider = registry.provider();
        let nobody = InstanceId::new("nobody");
        provider
            .registry()
            .unwrap()
            .deregister(&nobody)
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn no_fault_of_the_registry_removes_an_instance() {
    let agent = Agent::start().await.unwrap();
    // A short wait, since an index that went backwards is only seen at the end of one.
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

    // An index that goes backwards is a server that was replaced: read anew, nothing lost.
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
