//! A stack in one process: real models, a minimal gateway, and a registry that can be made to fail.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use futures_util::stream;
use futures_util::stream::StreamExt;
use http::{StatusCode, Uri};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tower::ServiceExt;
use waypost::provider::{MemoryProvider, NamesWatch, Provider, Watch};
use waypost::{
    Health, Instance, ProviderError, ProviderErrorKind, ServiceDiscoveryClient, ServiceName,
};
use waypost_ai_models::Upstream;
use waypost_testkit::free_ports;
use waypost_ui::Peers;

/// The time limit for any event that a test expects, long enough for a busy machine.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// The UI with the services that it calls.
pub(crate) struct Stack {
    pub(crate) registry: FlakyRegistry,
    pub(crate) models: Models,
    pub(crate) ui: Server,
    _gateway: Server,
}

impl Stack {
    /// Starts a stack with this number of model instances.
    pub(crate) async fn of(instances: usize) -> Self {
        let registry = FlakyRegistry::default();
        let models = Models::default();
        for number in 1..=instances {
            models.start(&registry, &format!("ai-models-{number}"));
        }
        let gateway = Server::of(models.gateway()).await;
        registry.add("api-gateway", "gateway-1", gateway.address, Health::Passing);
        let ui = Server::of(ui(&registry)).await;
        Self {
            registry,
            models,
            ui,
            _gateway: gateway,
        }
    }
}

/// The UI without other services.
pub(crate) fn ui(registry: &FlakyRegistry) -> Router {
    let client = ServiceDiscoveryClient::new(Arc::new(registry.clone()));
    waypost_ui::router(&client, &Peers::default()).unwrap()
}

/// A server that stops with the test.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn of(router: Router) -> Self {
        Self::at(unused_address(), router).await
    }

    pub(crate) async fn at(address: SocketAddr, router: Router) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, task }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

/// An address that nothing listens on, and that no other test uses.
pub(crate) fn unused_address() -> SocketAddr {
    let [port] = free_ports();
    SocketAddr::from(([127, 0, 0, 1], port))
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The running instances of the models, and a gateway that calls them round-robin.
#[derive(Clone, Default)]
pub(crate) struct Models {
    running: Arc<Mutex<Vec<(String, Router)>>>,
    next: Arc<AtomicUsize>,
}

impl Models {
    pub(crate) fn start(&self, registry: &FlakyRegistry, id: &str) {
        self.start_with(registry, id, None);
    }

    pub(crate) fn start_with(
        &self,
        registry: &FlakyRegistry,
        id: &str,
        upstream: Option<Upstream>,
    ) {
        let address = SocketAddr::from(([127, 0, 0, 1], 8002));
        registry.add("ai-models", id, address, Health::Passing);
        let router = waypost_ai_models::router(id, upstream);
        self.running.lock().unwrap().push((id.to_owned(), router));
    }

    /// The gateway, with an internal route that the UI must not expose.
    pub(crate) fn gateway(&self) -> Router {
        Router::new()
            .route("/ai-models/{*path}", any(forward))
            .route("/internal/routes", any(async || "secret"))
            .with_state(self.clone())
    }
}

async fn forward(
    State(models): State<Models>,
    Path(path): Path<String>,
    mut request: Request,
) -> Response {
    let router = {
        let running = models.running.lock().unwrap();
        match running.len() {
            0 => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
            all => running[models.next.fetch_add(1, Ordering::Relaxed) % all]
                .1
                .clone(),
        }
    };
    *request.uri_mut() = Uri::try_from(format!("/{path}")).unwrap();
    router.oneshot(request).await.into_response()
}

/// An in-memory registry that can be made unreachable.
#[derive(Clone, Debug)]
pub(crate) struct FlakyRegistry {
    pub(crate) memory: MemoryProvider,
    down: watch::Sender<bool>,
}

impl Default for FlakyRegistry {
    fn default() -> Self {
        Self {
            memory: MemoryProvider::new(),
            down: watch::Sender::new(false),
        }
    }
}

impl FlakyRegistry {
    pub(crate) fn add(&self, service: &str, id: &str, address: SocketAddr, health: Health) {
        let service = ServiceName::new(service).unwrap();
        let host = address.ip().to_string().parse().unwrap();
        let instance = Instance::builder(service, host, address.port())
            .id(id)
            .version("1.2.0")
            .health(health);
        self.memory.insert(instance.build().unwrap());
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.down.send_replace(down);
    }

    /// Ends a watch with an error when the registry goes down.
    fn until_down<T: Send + 'static>(
        &self,
        updates: stream::BoxStream<'static, Result<T, ProviderError>>,
    ) -> stream::BoxStream<'static, Result<T, ProviderError>> {
        let mut down = self.down.subscribe();
        let mut again = self.down.subscribe();
        let down = async move {
            let _ = down.wait_for(|down| *down).await;
        };
        let failure = async move {
            let _ = again.wait_for(|down| *down).await;
            Err(ProviderError::new(
                "memory",
                ProviderErrorKind::Unreachable,
                "connection refused",
            ))
        };
        updates
            .take_until(down)
            .chain(stream::once(failure))
            .boxed()
    }
}

impl Provider for FlakyRegistry {
    fn describe(&self) -> Arc<str> {
        "a registry in memory".into()
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        self.until_down(self.memory.watch(service))
    }

    fn watch_names(&self) -> NamesWatch {
        self.until_down(self.memory.watch_names())
    }
}
