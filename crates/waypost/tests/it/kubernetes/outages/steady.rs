//! A service of a cluster that is looked up a thousand times a second, whatever happens to the API
//! server. `examples/kubernetes_outages.rs` uses it too.

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
#[allow(dead_code)] // the example uses all of them
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outage {
    /// `kill -9`.
    Killed,
    /// SIGTERM: no more connections, but open watches go on for a while.
    Terminated,
    /// SIGSTOP, or a network that swallows everything.
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

    /// Whether something can change while it lasts.
    fn has_changes(self) -> bool {
        self != Self::EtcdFrozen
    }
}

/// What the look-ups saw of an outage.
#[derive(Debug)]
pub(crate) struct Seen {
    /// How long it took until the instances were said to be stale; None if they never were.
    pub(crate) stale_after: Option<Duration>,
    /// The age that was said at its end.
    pub(crate) age: Duration,
    /// How long after its end a change from during it was picked, with nothing stale any more.
    pub(crate) recovered_in: Duration,
}

/// A client that asks all the time.
pub(crate) struct Steady {
    pub(crate) server: Arc<ApiServer>,
    pub(crate) client: ServiceDiscoveryClient,
    asked: Arc<AtomicUsize>,
    failed: Arc<AtomicUsize>,
    asking: JoinHandle<()>,
}

impl Drop for Steady {
    fn drop(&mut self) {
        self.asking.abort();
    }
}

impl Steady {
    /// The service `web` with an endpoint at 10.0.0.1 that is already looked up.
    pub(crate) async fn begin(builder: Builder) -> Self {
        let server = Arc::new(builder.namespace("demo").start().await.unwrap());
        put(&server, "10.0.0.1");
        let client = client(&server);
        client.wait_for("web").await.unwrap();
        let (asked, failed) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let asking = tokio::spawn({
            let (client, asked, failed) = (client.clone(), asked.clone(), failed.clone());
            async move {
                let mut each = interval(Duration::from_millis(1));
                each.set_missed_tick_behavior(MissedTickBehavior::Burst);
                loop {
                    each.tick().await;
                    let picked = client.pick("web").await;
                    failed.fetch_add(usize::from(picked.is_err()), Relaxed);
                    asked.fetch_add(1, Relaxed);
                }
            }
        });
        Self {
            server,
            client,
            asked,
            failed,
            asking,
        }
    }

    /// Lets an outage happen for so long; what changes meanwhile is found after it.
    pub(crate) async fn suffer(&self, outage: Outage, lasting: Duration) -> Seen {
        outage.begin(&self.server).await;
        let began = Instant::now();
        let stale = timeout(lasting, self.until(|it| it.freshness().is_stale())).await;
        let stale_after = stale.ok().map(|_| began.elapsed());
        sleep(lasting.saturating_sub(began.elapsed())).await;
        if outage.has_changes() {
            put(&self.server, "10.0.0.2");
        }
        let age = self.now().await.unwrap().freshness().age();
        outage.end(&self.server).await;
        let back = Instant::now();
        if !outage.has_changes() {
            put(&self.server, "10.0.0.2");
        }
        self.until_only("10.0.0.2").await;
        Seen {
            stale_after,
            age: age.unwrap_or_default(),
            recovered_in: back.elapsed(),
        }
    }

    /// Gives how many look-ups there were and how many failed.
    pub(crate) fn end(self) -> (usize, usize) {
        (self.asked.load(Relaxed), self.failed.load(Relaxed))
    }

    pub(crate) async fn now(&self) -> Result<Arc<Snapshot>, Error> {
        let web = "web".parse().unwrap();
        self.client.directory().lookup(&web).await
    }

    /// Waits until this is the only one to be picked, and fresh.
    pub(crate) async fn until_only(&self, address: &str) {
        self.until(|it| hosts(it) == [address] && !it.freshness().is_stale())
            .await;
    }

    pub(crate) async fn until(&self, reached: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let mut subscription = self.client.directory().subscribe(&"web".parse().unwrap());
        let reaching = async {
            loop {
                if reached(&subscription.current()) {
                    return subscription.current().clone();
                }
                subscription.changed().await;
            }
        };
        let reached = timeout(Duration::from_secs(60), reaching).await;
        reached.expect("it never comes to that")
    }
}

pub(crate) fn client(server: &ApiServer) -> ServiceDiscoveryClient {
    let provider = KubernetesProvider::builder().kubeconfig(server.kubeconfig());
    ServiceDiscoveryClient::new(Arc::new(provider.build().unwrap()))
}

/// Lets `web` have this one endpoint.
pub(crate) fn put(server: &ApiServer, address: &str) {
    server.put(&manifest::service("demo", "web", &[("http", 80)]));
    let endpoint = [manifest::endpoint(address)];
    server.put(&manifest::slice(
        "demo",
        "web",
        "web-1",
        &[("http", 80)],
        endpoint,
    ));
}

/// The addresses of the instances that can be picked.
pub(crate) fn hosts(snapshot: &Snapshot) -> Vec<String> {
    let ready = snapshot.ready().iter();
    ready
        .map(|endpoint| endpoint.instance().host().to_string())
        .collect()
}
