//! What is served while the API server is away, hangs or has forgotten, and how soon all is well
//! again.

use std::{sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use tokio::time::{Instant, sleep, timeout};
use waypost::{Directory, KubernetesProvider, Snapshot};
use waypost_kube_standin::{ApiServer, manifest};

/// A server, and one who looks a service up.
struct Scene {
    server: ApiServer,
    directory: Directory,
    name: waypost::ServiceName,
}

impl Scene {
    async fn new(server: ApiServer) -> Self {
        server.put(&manifest::service("demo", "web", &[("http", 80)]));
        put_slice(&server, "10.0.0.1");
        let builder = KubernetesProvider::builder().kubeconfig(server.kubeconfig());
        let provider = builder.namespace("demo").build().unwrap();
        let scene = Self {
            server,
            directory: Directory::new(Arc::new(provider)),
            name: "web".parse().unwrap(),
        };
        scene.has("10.0.0.1", Duration::from_secs(10)).await;
        scene
    }

    async fn start() -> Self {
        Self::new(
            ApiServer::builder()
                .namespace("demo")
                .start()
                .await
                .unwrap(),
        )
        .await
    }

    /// Looks up until it is as wanted; a look-up that fails is one too many. Gives the time it took.
    async fn until(
        &self,
        what: &str,
        most: Duration,
        wanted: impl Fn(&Snapshot) -> bool,
    ) -> Duration {
        let started = Instant::now();
        let looking = async {
            loop {
                let snapshot = self.directory.lookup(&self.name).await.unwrap();
                assert!(snapshot.usable().is_ok(), "no instance is left");
                if wanted(&snapshot) {
                    return started.elapsed();
                }
                sleep(Duration::from_millis(10)).await;
            }
        };
        let took = timeout(most, looking).await;
        took.unwrap_or_else(|_| panic!("not {what} within {most:?}"))
    }

    async fn is_stale(&self, most: Duration) -> Duration {
        self.until("stale", most, |s| s.freshness().is_stale())
            .await
    }

    /// Waits until this is the one instance, and nothing is stale.
    async fn has(&self, address: &str, most: Duration) -> Duration {
        self.until(address, most, |snapshot| {
            let hosts: Vec<_> = snapshot.instances().map(|i| i.host().bare()).collect();
            !snapshot.freshness().is_stale() && hosts == [address]
        })
        .await
    }
}

fn put_slice(server: &ApiServer, address: &str) {
    let endpoint = [manifest::endpoint(address)];
    server.put(&manifest::slice(
        "demo",
        "web",
        "web-1",
        &[("http", 8080)],
        endpoint,
    ));
}

const NOTICED: Duration = Duration::from_secs(17);
const BACK: Duration = Duration::from_millis(2500);

/// Makes an outage, checks that it is noticed, changes something behind the client's back, ends
/// the outage, and checks that the change is known soon after.
async fn outage(
    name: &str,
    noticed: Duration,
    begin: impl FnOnce(&ApiServer) -> BoxFuture<'_, ()>,
    end: impl FnOnce(&ApiServer) -> BoxFuture<'_, ()>,
) {
    let scene = Scene::start().await;
    begin(&scene.server).await;
    let took = scene.is_stale(noticed).await;
    println!("{name}: noticed after {took:?}");
    sleep(Duration::from_secs(3)).await;
    put_slice(&scene.server, "10.0.0.2");
    end(&scene.server).await;
    let took = scene.has("10.0.0.2", BACK).await;
    println!("{name}: right again after {took:?}");
}

#[tokio::test]
async fn a_server_that_is_killed_and_restarted() {
    outage(
        "killed",
        Duration::from_secs(2),
        |server| server.kill().boxed(),
        |server| async { server.restart().await.unwrap() }.boxed(),
    )
    .await;
}

#[tokio::test]
async fn a_server_that_hangs() {
    outage(
        "frozen",
        NOTICED,
        |server| async { server.freeze() }.boxed(),
        |server| async { server.thaw() }.boxed(),
    )
    .await;
}

#[tokio::test]
async fn a_server_that_answers_503() {
    outage(
        "503",
        NOTICED,
        |server| async { server.faults().fail_with(Some(503)) }.boxed(),
        |server| async { server.faults().fail_with(None) }.boxed(),
    )
    .await;
}

#[tokio::test]
async fn an_etcd_that_hangs() {
    let scene = Scene::start().await;
    scene.server.faults().freeze_etcd(true);
    let took = scene.is_stale(NOTICED).await;
    println!("etcd: noticed after {took:?}");
    // Who starts now is served from the server's cache.
    let builder = KubernetesProvider::builder().kubeconfig(scene.server.kubeconfig());
    let directory = Directory::new(Arc::new(builder.namespace("demo").build().unwrap()));
    let started = Instant::now();
    let snapshot = directory.lookup(&scene.name).await.unwrap();
    assert_eq!(snapshot.instances().len(), 1);
    println!("etcd: another client begins after {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(2));
    scene.server.faults().freeze_etcd(false);
    put_slice(&scene.server, "10.0.0.2");
    let took = scene.has("10.0.0.2", BACK).await;
    println!("etcd: right again after {took:?}");
}

#[tokio::test]
async fn an_etcd_restored_to_an_earlier_state() {
    let scene = Scene::start().await;
    let backup = scene.server.backup();
    for last in 2..20 {
        put_slice(&scene.server, &format!("10.0.0.{last}"));
    }
    scene.has("10.0.0.19", Duration::from_secs(5)).await;
    scene.server.restore(&backup).await.unwrap();
    let took = scene.has("10.0.0.1", Duration::from_secs(14)).await;
    println!("restored: right again after {took:?}");
    put_slice(&scene.server, "10.0.0.3");
    scene.has("10.0.0.3", BACK).await;
}

#[tokio::test]
async fn a_history_that_was_forgotten_is_listed_anew_at_once() {
    let scene = Scene::start().await;
    // The watch breaks, and what it wants to go on from is no longer kept.
    scene.server.kill().await;
    scene.server.restart().await.unwrap();
    put_slice(&scene.server, "10.0.0.2");
    let took = scene.has("10.0.0.2", BACK).await;
    println!("410: right again after {took:?}");
}

#[tokio::test]
async fn a_server_that_is_terminated_ends_its_watches_a_minute_later() {
    let server = ApiServer::builder()
        .namespace("demo")
        .termination_tail(Duration::from_secs(20));
    let scene = Scene::new(server.start().await.unwrap()).await;
    let ended = async {
        scene.server.terminate().await;
    };
    let looking = async {
        // The watch goes on, but nobody answers any more.
        let took = scene.is_stale(NOTICED).await;
        println!("terminated: noticed after {took:?}");
    };
    tokio::join!(ended, looking);
    put_slice(&scene.server, "10.0.0.2");
    scene.server.restart().await.unwrap();
    let took = scene.has("10.0.0.2", BACK).await;
    println!("terminated: right again after {took:?}");
}

#[tokio::test]
async fn a_server_without_watch_lists_is_listed_in_the_old_way() {
    let server = ApiServer::builder()
        .namespace("demo")
        .start()
        .await
        .unwrap();
    server.faults().disable_watch_list(true);
    let scene = Scene::new(server).await;
    put_slice(&scene.server, "10.0.0.2");
    scene.has("10.0.0.2", BACK).await;
    let lists = scene.server.requests();
    let lists = lists
        .iter()
        .filter(|r| r.verb == "list" && r.resource == "endpointslices");
    let queries: Vec<_> = lists.map(|r| r.query.clone()).collect();
    assert!(
        queries
            .iter()
            .all(|q| q.contains("resourceVersion=0") || q.contains("limit=1")),
        "{queries:?}"
    );
}

#[tokio::test]
async fn a_server_that_is_down_at_the_start_is_found_when_it_comes() {
    let server = ApiServer::builder()
        .namespace("demo")
        .start()
        .await
        .unwrap();
    server.put(&manifest::service("demo", "web", &[("http", 80)]));
    put_slice(&server, "10.0.0.1");
    server.kill().await;
    let builder = KubernetesProvider::builder().kubeconfig(server.kubeconfig());
    let directory = Directory::new(Arc::new(builder.namespace("demo").build().unwrap()));
    let name = "web".parse().unwrap();
    let started = Instant::now();
    let error = directory.lookup(&name).await.unwrap_err();
    assert!(error.to_string().contains("refused"), "{error}");
    assert!(started.elapsed() < Duration::from_secs(1));
    sleep(Duration::from_secs(4)).await;
    server.restart().await.unwrap();
    let scene = Scene {
        server,
        directory,
        name,
    };
    let found = async {
        while scene.directory.lookup(&scene.name).await.is_err() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(BACK, found).await.unwrap();
}
