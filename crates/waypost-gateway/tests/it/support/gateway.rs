//! A gateway on a free port, with an in-memory registry.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::TokioExecutor;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use waypost::provider::{MemoryProvider, Provider};
use waypost::{Host, Instance, InstanceBuilder, ServiceDiscoveryClient, ServiceName};
use waypost_gateway::{Config, Gateway};

use super::{FullResponse, with_deadline};

type AnyBody = UnsyncBoxBody<Bytes, std::io::Error>;

pub(crate) struct TestGateway {
    pub(crate) address: SocketAddr,
    pub(crate) internal: SocketAddr,
    pub(crate) memory: MemoryProvider,
    pub(crate) discovery: ServiceDiscoveryClient,
    http: Client<HttpConnector, AnyBody>,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<Result<(), waypost::Error>>,
}

impl TestGateway {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| ()).await
    }

    pub(crate) async fn start_with(edit: impl FnOnce(&mut Config)) -> Self {
        let memory = MemoryProvider::new();
        Self::start_on(Arc::new(memory.clone()), memory, edit).await
    }

    /// Starts a gateway on `provider`. [`add`](Self::add) adds instances to `memory`.
    pub(crate) async fn start_on(
        provider: Arc<dyn Provider>,
        memory: MemoryProvider,
        edit: impl FnOnce(&mut Config),
    ) -> Self {
        Self::start_with_client(ServiceDiscoveryClient::new(provider), memory, edit).await
    }

    /// Like [`start_on`](Self::start_on), with a client with other options.
    pub(crate) async fn start_with_client(
        discovery: ServiceDiscoveryClient,
        memory: MemoryProvider,
        edit: impl FnOnce(&mut Config),
    ) -> Self {
        let mut config = Config::default();
        config.deregistration_delay = std::time::Duration::ZERO;
        config.worker_threads = 2;
        config.list_routes = true;
        config.error_details = true;
        edit(&mut config);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let pages = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let internal = pages.local_addr().expect("an address");
        let (stop, stopped) = oneshot::channel();
        let gateway = Gateway::new(discovery.clone(), config).with_internal(pages);
        let serving = tokio::spawn(gateway.serve(listener, async {
            let _ = stopped.await;
        }));
        let http = Client::builder(TokioExecutor::new()).build_http();
        Self {
            address,
            internal,
            memory,
            discovery,
            http,
            stop: Some(stop),
            serving,
        }
    }

    /// Adds an instance and waits until the gateway's directory has it.
    pub(crate) async fn add(&self, service: &str, id: &str, address: SocketAddr) {
        self.insert(instance(service, id, address)).await;
    }

    pub(crate) async fn insert(&self, instance: InstanceBuilder) {
        let instance = instance.build().expect("a valid instance");
        let (service, id) = (instance.service().clone(), instance.id().clone());
        self.memory.insert(instance);
        with_deadline("discovery of the instance", async {
            let mut names = self.discovery.directory().subscribe_catalog();
            while !names.changed().await.names().contains(&service) {}
            let mut instances = self.discovery.directory().subscribe(&service);
            while !instances
                .changed()
                .await
                .instances()
                .any(|instance| *instance.id() == id)
            {}
        })
        .await;
    }

    pub(crate) async fn get(&self, path: &str) -> FullResponse {
        self.send(Request::get(self.url(path))).await
    }

    pub(crate) async fn send(&self, request: http::request::Builder) -> FullResponse {
        self.send_body(request, "").await
    }

    pub(crate) async fn send_body(
        &self,
        request: http::request::Builder,
        body: impl Into<Bytes>,
    ) -> FullResponse {
        let body = Full::new(body.into())
            .map_err(|never| match never {})
            .boxed_unsync();
        let response = self.begin(request.body(body).expect("a request")).await;
        FullResponse::read(response.expect("a response")).await
    }

    /// Sends a request and returns the response without waiting for its body.
    pub(crate) async fn begin(
        &self,
        request: Request<AnyBody>,
    ) -> Result<Response<Incoming>, ClientError> {
        with_deadline("the response", self.http.request(request)).await
    }

    /// The entry of a service in `/internal/services`.
    pub(crate) async fn service(&self, name: &str) -> serde_json::Value {
        let shown = self.get("/internal/services").await.json();
        let services = shown["services"].as_array().expect("a list");
        let found = services.iter().find(|service| service["name"] == name);
        found
            .unwrap_or_else(|| panic!("no {name} in {shown}"))
            .clone()
    }

    /// The URL of a path, on the internal listener if it is one of its pages.
    pub(crate) fn url(&self, path: &str) -> String {
        let is_internal = path.starts_with("/internal/") || path == "/metrics";
        let address = if is_internal {
            self.internal
        } else {
            self.address
        };
        format!("http://{address}{path}")
    }

    /// Starts the shutdown without waiting for it.
    pub(crate) fn begin_shutdown(&mut self) {
        let _ = self.stop.take().map(|stop| stop.send(()));
    }

    /// Waits until the shutdown is complete.
    pub(crate) async fn stopped(&mut self) {
        with_deadline("the shutdown", &mut self.serving)
            .await
            .expect("the gateway does not panic")
            .expect("no error");
    }
}

/// The builder of an instance.
pub(crate) fn instance(service: &str, id: &str, address: SocketAddr) -> InstanceBuilder {
    let service = ServiceName::new(service).expect("a valid name");
    Instance::builder(service, Host::Ip(address.ip()), address.port()).id(id)
}
