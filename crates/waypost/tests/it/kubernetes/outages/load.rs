//! A client that makes 1,000 look-ups per second during an outage of the API server. The program
//! `kubernetes_outages` in `bench/` uses it too.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use waypost::provider::kubernetes::KubernetesProvider;
use waypost::snapshot::Snapshot;
use waypost::{Error, ServiceDiscoveryClient};
use waypost_fake_kubernetes::{ApiServer, Builder, manifest};

/// What happens to the server.
#[allow(dead_code)] // the program in `bench/` uses all of them
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outage {
    /// `kill -9`.
    Killed,
    /// SIGTERM: new connections are refused, but open watches continue for a while.
    Terminated,
    /// SIGSTOP, or a network that drops all packets.
    Frozen,
    /// Its etcd hangs.
    EtcdFrozen,
    /// It answers everything with 503.
    Failing,
}

impl Outage {
    async fn begin(self, server: &Arc<ApiServer>) {
        match self {
            Self::Killed => server.kill().await,
            Self::Terminated => {
                let server = Arc::clone(server);
                tokio::spawn(async move { server.terminate().await });
            }
            Self::Frozen => server.freeze(),
            Self::EtcdFrozen => server.faults().freeze_etcd(true),
            Self::Failing => server.faults().fail_with(Some(503)),
        }
    }

    async fn end(self, server: &ApiServer) {
        match self {
            Self::Killed | Self::Terminated => server.restart().await.unwrap(),
            Self::Frozen => server.thaw(),
            Self::EtcdFrozen | Self::Failing => server.faults().heal(),
        }
    }

    /// Whether objects can be changed during the outage.
    fn allows_changes(self) -> bool {
        self != Self::EtcdFrozen
    }
}

/// How an outage affected the client.
#[derive(Debug)]
pub(crate) struct Effect {
    /// How long after its beginning the instances became stale; `None` if they never did.
    pub(crate) stale_after: Option<Duration>,
    /// The age of the snapshot at its end.
    pub(crate) age: Duration,
    /// How long after its end the snapshot was fresh and had a change from during the outage.
    pub(crate) recovered_after: Duration,
}

/// A client under load, and its server.
pub(crate) struct Load {
    pub(crate) server: Arc<ApiServer>,
    pub(crate) client: ServiceDiscoveryClient,
    lookups: Arc<AtomicUsize>,
    failures: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Drop for Load {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Load {
    /// Starts looking up `web`, whose endpoint is 10.0.0.1.
    pub(crate) async fn start(server: Builder) -> Self {
        let server = Arc::new(server.namespace("demo").start().await.unwrap());
        put_web(&server, "10.0.0.1");
        let client = client(&server);
        client.wait_for("web").await.unwrap();
        let (lookups, failures) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let task = tokio::spawn({
            let (client, lookups, failures) = (client.clone(), lookups.clone(), failures.clone());
            async move {
                let mut ticks = interval(Duration::from_millis(1));
                ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
                loop {
                    ticks.tick().await;
                    let picked = client.pick("web").await;
                    failures.fetch_add(usize::from(picked.is_err()), Relaxed);
                    lookups.fetch_add(1, Relaxed);
                }
            }
        });
        Self {
            server,
            client,
            lookups,
            failures,
            task,
        }
    }

    /// Begins an outage and waits until the instances are stale, for at least `duration` and at most
    /// `limit`. Then changes an endpoint, ends the outage and waits for the change.
    pub(crate) async fn run_outage(
        &self,
        outage: Outage,
        duration: Duration,
        limit: Duration,
    ) -> Effect {
        outage.begin(&self.server).await;
        let began = Instant::now();
        let stale = timeout(limit, self.until(|it| it.freshness().is_stale())).await;
        let stale_after = stale.ok().map(|_| began.elapsed());
        sleep(duration.saturating_sub(began.elapsed())).await;
        if outage.allows_changes() {
            put_web(&self.server, "10.0.0.2");
        }
        let age = self.snapshot().await.unwrap().freshness().age();
        outage.end(&self.server).await;
        let ended = Instant::now();
        if !outage.allows_changes() {
            put_web(&self.server, "10.0.0.2");
        }
        self.until_only("10.0.0.2").await;
        Effect {
            stale_after,
            age: age.unwrap_or_default(),
            recovered_after: ended.elapsed(),
        }
    }

    /// Stops, and returns how many look-ups there were and how many failed.
    pub(crate) fn stop(self) -> (usize, usize) {
        (self.lookups.load(Relaxed), self.failures.load(Relaxed))
    }

    pub(crate) async fn snapshot(&self) -> Result<Arc<Snapshot>, Error> {
        let web = "web".parse().unwrap();
        self.client.directory().lookup(&web).await
    }

    /// Waits until this is the only ready address, and the snapshot is fresh.
    pub(crate) async fn until_only(&self, address: &str) {
        self.until(|it| hosts(it) == [address] && !it.freshness().is_stale())
            .await;
    }

    /// Waits for a snapshot that fulfils a condition.
    pub(crate) async fn until(&self, condition: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let mut subscription = self.client.directory().subscribe(&"web".parse().unwrap());
        let waiting = async {
            loop {
                if condition(&subscription.current()) {
                    return subscription.current().clone();
                }
                subscription.changed().await;
            }
        };
        let found = timeout(Duration::from_secs(60), waiting).await;
        found.expect("no such snapshot in time")
    }
}

pub(crate) fn client(server: &ApiServer) -> ServiceDiscoveryClient {
    let provider = KubernetesProvider::builder().kubeconfig(server.kubeconfig());
    ServiceDiscoveryClient::new(Arc::new(provider.build().unwrap()))
}

/// Makes this address the only endpoint of the Service `web`.
pub(crate) fn put_web(server: &ApiServer, address: &str) {
    server.put(&manifest::service("demo", "web", &[("http", 80)]));
    let endpoint = [manifest::endpoint(address)];
    let ports = [("http", 80)];
    server.put(&manifest::slice("demo", "web", "web-1", &ports, endpoint));
}

/// The addresses of the ready instances.
pub(crate) fn hosts(snapshot: &Snapshot) -> Vec<String> {
    let ready = snapshot.ready().iter();
    ready
        .map(|endpoint| endpoint.instance().host().to_string())
        .collect()
}
