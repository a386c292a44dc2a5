//! No request fails while instances are replaced or the registry is down.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use http::{Request, Response};
use tokio::task::JoinHandle;
use waypost::InstanceId;

use crate::support::{FlakyRegistry, Origin, RawClient, TestGateway, body, wait_until};

/// The number of requests between two events.
const SOME: usize = 200;

/// Clients that send requests one after the other.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    clients: Vec<JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(gateway: &TestGateway) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let clients = (0..8).map(|_| {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            tokio::spawn(send(gateway.address, stop, done))
        });
        Self {
            clients: clients.collect(),
            done: Arc::clone(&done),
            stop: Arc::clone(&stop),
        }
    }

    /// Waits until some more requests have been answered.
    async fn more(&self) {
        let target = self.done.load(Ordering::SeqCst) + SOME;
        wait_until("responses", || self.done.load(Ordering::SeqCst) >= target).await;
    }

    /// Stops, and returns the responses that are not as expected.
    async fn failures(self) -> Vec<String> {
        self.stop.store(true, Ordering::SeqCst);
        let mut failures = Vec::new();
        for client in self.clients {
            failures.extend(client.await.expect("no panic"));
        }
        failures
    }
}

async fn send(
    gateway: std::net::SocketAddr,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
) -> Vec<String> {
    let mut failures = Vec::new();
    let mut client = RawClient::connect(gateway).await;
    while !stop.load(Ordering::SeqCst) {
        client.send("GET /shop/ HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let response = client.read_until("\r\n\r\n").await;
        if !response.starts_with("HTTP/1.1 200") {
            failures.push(response);
            client = RawClient::connect(gateway).await;
        }
        done.fetch_add(1, Ordering::SeqCst);
    }
    failures
}

/// An instance that counts its requests in progress.
async fn instance() -> (Origin, Arc<AtomicUsize>) {
    let open = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&open);
    let origin = Origin::start(move |_: Request<_>| {
        let open = Arc::clone(&counted);
        async move {
            open.fetch_add(1, Ordering::SeqCst);
            tokio::task::yield_now().await;
            open.fetch_sub(1, Ordering::SeqCst);
            // Without a body, a response ends with its head.
            let response = Response::builder().status(200).header("content-length", 0);
            response.body(body("")).expect("a response")
        }
    });
    (origin.await, open)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_three_instances_are_restarted_one_after_the_other() {
    let gateway = TestGateway::start().await;
    let mut instances = Vec::new();
    for id in ["a", "b", "c"] {
        let (origin, open) = instance().await;
        gateway.add("shop", id, origin.address).await;
        instances.push((id, origin, open));
    }
    let load = Load::start(&gateway);
    for (id, mut origin, open) in instances {
        load.more().await;
        // A graceful shutdown: deregister, finish the open requests, close the connections.
        gateway.memory.remove(&InstanceId::new(id));
        load.more().await;
        wait_until("no open request", || open.load(Ordering::SeqCst) == 0).await;
        origin.kill().await;
        load.more().await;
        let (successor, _) = instance().await;
        gateway.add("shop", id, successor.address).await;
        load.more().await;
        assert!(successor.requests() > 0, "{id} gets requests again");
    }
    assert_eq!(load.failures().await, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_fails_while_the_registry_is_down() {
    let registry = FlakyRegistry::new();
    let memory = registry.memory.clone();
    let gateway = TestGateway::start_on(Arc::new(registry.clone()), memory, |_| ()).await;
    let (first, _) = instance().await;
    gateway.add("shop", "a", first.address).await;
    let load = Load::start(&gateway);
    load.more().await;
    registry.set_down(true);
    load.more().await;
    load.more().await;
    registry.set_down(false);
    let (second, _) = instance().await;
    gateway.add("shop", "b", second.address).await;
    load.more().await;
    assert_eq!(load.failures().await, Vec::<String>::new());
    assert!(
        second.requests() > 0,
        "the gateway follows the registry again"
    );
}
