//! Calls through the Tower, reqwest and tonic integrations, to processes that are killed or stopped.

mod bodies;
mod grpc;
mod load;
mod policies;
mod retries;

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use waypost::balance::Selection;
use waypost::integration::tower::changes;
use waypost::provider::MemoryProvider;
use waypost::{Balancer, Instance};

use crate::scripted::auth;

/// Not a test: an HTTP server that tests start as a separate process.
#[tokio::test]
#[ignore = "a server, started by other tests as a process of its own"]
async fn http_server_process() {
    let Ok(port) = std::env::var("WAYPOST_TEST_PORT") else {
        return;
    };
    let address = format!("127.0.0.1:{port}");
    let listener = tokio::net::TcpListener::bind(&address).await.unwrap();
    let hello = move || async move { port };
    let posts = axum::routing::post(hello.clone()).get(hello);
    axum::serve(listener, axum::Router::new().route("/v2/who", posts))
        .await
        .unwrap();
}

/// The same for gRPC.
#[tokio::test]
#[ignore = "a server, started by other tests as a process of its own"]
async fn grpc_server_process() {
    let Ok(port) = std::env::var("WAYPOST_TEST_PORT") else {
        return;
    };
    let (_reporter, health) = tonic_health::server::health_reporter();
    let server = tonic::transport::Server::builder().add_service(health);
    let address = format!("127.0.0.1:{port}").parse().unwrap();
    server.serve(address).await.unwrap();
}

struct Server {
    port: u16,
    process: Child,
}

impl Server {
    async fn start(port: u16) -> Self {
        Self::run("http_server_process", port).await
    }

    /// Runs one of the server functions above in a separate process.
    async fn run(function: &str, port: u16) -> Self {
        let process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", &format!("calls::{function}"), "--ignored"])
            .env("WAYPOST_TEST_PORT", port.to_string())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let server = Self { port, process };
        let deadline = Instant::now() + Duration::from_secs(60);
        while TcpStream::connect(("127.0.0.1", port)).await.is_err() {
            assert!(Instant::now() < deadline, "the server doesn't start");
            sleep(Duration::from_millis(10)).await;
        }
        server
    }

    fn id(&self) -> String {
        self.port.to_string()
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.process);
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn selection(balancer: &Balancer, id: &str) -> Selection {
    let explanation = balancer.explain();
    let mut instances = explanation.instances.iter();
    instances.find(|i| i.id.as_str() == id).unwrap().selection
}

fn plain_reqwest() -> reqwest::Client {
    reqwest_builder().build().unwrap()
}

fn reqwest_builder() -> reqwest::ClientBuilder {
    let provider = rustls::crypto::ring::default_provider();
    let tls = rustls::ClientConfig::builder_with_provider(provider.into())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let builder = reqwest::Client::builder().tls_backend_preconfigured(tls);
    builder.no_proxy()
}

#[tokio::test]
async fn the_discover_stream_reports_changes_without_requests() {
    use futures_util::StreamExt;
    use tower::discover::Change;

    let memory = MemoryProvider::new();
    let instance = |id: &str, weight| {
        let builder = Instance::builder(auth(), "10.0.0.1".parse().unwrap(), 80).id(id);
        builder
            .weight(waypost::Weight::new(weight))
            .build()
            .unwrap()
    };
    memory.replace(&auth(), [instance("a", 1), instance("b", 1)]);
    let directory = waypost::directory::Directory::new(Arc::new(memory.clone()));
    let mut changes = Box::pin(changes(directory.subscribe(&auth())));
    let mut next = async || match changes.next().await.unwrap().unwrap() {
        Change::Insert(id, instance) => format!("{id}={}", instance.weight()),
        Change::Remove(id) => format!("-{id}"),
    };
    assert_eq!((next().await, next().await), ("a=1".into(), "b=1".into()));
    memory.replace(&auth(), [instance("b", 5), instance("c", 1)]);
    assert_eq!(next().await, "-a");
    assert_eq!((next().await, next().await), ("b=5".into(), "c=1".into()));
}
