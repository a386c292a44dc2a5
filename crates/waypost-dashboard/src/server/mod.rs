//! A server of the page, which forwards to a registry and to the gateway that is registered in it.
//!
//! The page sends requests only to its own origin, so it needs no CORS headers, and its content security
//! policy can forbid everything else. A registry without `/v1/waypost`, such as Consul, is read with
//! blocking queries and shown in the same way.

mod consul_bridge;
mod forward;
mod problem;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use http::{HeaderMap, Method, StatusCode, Uri};

use self::consul_bridge::ConsulBridge;
use self::forward::{Forward, ForwardError};
use self::problem::problem;
use crate::dashboard::{Dashboard, Sources};

/// The header with the token of the session.
pub const TOKEN_HEADER: &str = "x-waypost-token";

/// The settings of the server.
#[derive(Clone, Debug)]
pub struct Config {
    /// The title of the page. Default: the name of the stack or the datacenter.
    pub name: Option<String>,
    /// The URL of the registry, such as `http://127.0.0.1:8500`.
    pub registry: String,
    /// The kind of registry as shown to users: `embedded`, `Consul`.
    pub registry_kind: Option<String>,
    /// The token of the registry, if it needs one. Default: the token that the user enters in the page.
    pub registry_token: Option<String>,
    /// The name under which the gateway is registered; its metadata `internal` is the address of
    /// the traffic. Default: no traffic is shown.
    pub gateway: Option<String>,
    /// Whether the API of a runner is served at `/api/`, by a router that is merged with this one.
    /// Default: false.
    pub has_stack: bool,
    /// The token that is required to change the registry, in the header [`TOKEN_HEADER`].
    pub session_token: String,
    /// Pages of registered services to link to. Default: none.
    pub pages: Vec<ServicePage>,
}

/// The page of a service, served below a path of this server. Its links must be relative.
#[derive(Clone, Debug)]
pub struct ServicePage {
    /// The text of the link.
    pub title: String,
    /// The path, without a slash at the beginning or end, such as `try/ai-models`.
    pub path: String,
    /// The name under which the service is registered.
    pub service: String,
}

impl Config {
    /// Shows a registry, with the defaults for the rest.
    #[must_use]
    pub fn new(registry: &str, session_token: &str) -> Self {
        Self {
            name: None,
            registry: registry.trim_end_matches('/').to_owned(),
            registry_kind: None,
            registry_token: None,
            gateway: None,
            has_stack: false,
            session_token: session_token.to_owned(),
            pages: Vec::new(),
        }
    }
}

struct Server {
    config: Config,
    dashboard: Dashboard,
    forward: Forward,
    bridge: ConsulBridge,
}

/// Serves the page, `/v1/…` of the registry and `/internal/traffic` of the gateway. It is not an error if
/// the registry can't be reached: the page shows that.
///
/// It doesn't check the `Host` header: wrap it in a protection against other web pages.
///
/// # Errors
/// If the HTTP client can't be created, for example because no root certificates are installed.
///
/// ```
/// use waypost_dashboard::server::{Config, router};
///
/// let config = Config::new("http://127.0.0.1:8500", "random text");
/// let app = router(config)?;
/// # let _: axum::Router = app;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn router(config: Config) -> Result<Router, reqwest::Error> {
    let dashboard = Dashboard::new(&Sources {
        name: config.name.clone(),
        stack: config.has_stack.then(|| "api/".to_owned()),
        registry: Some("v1/".to_owned()),
        registry_kind: config.registry_kind.clone(),
        traffic: config
            .gateway
            .as_ref()
            .map(|_| "internal/traffic".to_owned()),
        links: config
            .pages
            .iter()
            .map(|page| (page.title.clone(), format!("{}/", page.path)))
            .collect(),
    });
    let forward = Forward::new()?;
    let bridge = ConsulBridge::new(
        forward.client().clone(),
        &config.registry,
        config.registry_token.clone(),
    );
    let pages = config.pages.clone();
    let server = Arc::new(Server {
        config,
        dashboard,
        forward,
        bridge,
    });
    let mut router = Router::new();
    for page in pages {
        let (root, below) = (
            format!("/{}/", page.path),
            format!("/{}/{{*path}}", page.path),
        );
        let page = Arc::new(page);
        let handler = any(
            move |State(server): State<Arc<Server>>, request: Request| async move {
                let answer = server.service_page(&page, request).await;
                answer.unwrap_or_else(IntoResponse::into_response)
            },
        );
        router = router.route(&root, handler.clone()).route(&below, handler);
    }
    Ok(router
        .route("/v1/waypost/events", get(events))
        .route("/v1/waypost/checks", get(checks))
        .route("/v1/{*path}", any(registry))
        .route("/internal/traffic", get(traffic))
        .fallback(page)
        .with_state(server))
}

async fn page(
    State(server): State<Arc<Server>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    if method != Method::GET && method != Method::HEAD {
        return problem(
            StatusCode::METHOD_NOT_ALLOWED,
            "Method not allowed",
            "Use GET.",
        );
    }
    match server
        .dashboard
        .respond(uri.path().trim_start_matches('/'), &headers)
    {
        Some(response) => response.map(Body::from),
        None => {
            let detail = format!("There is nothing at {}.", uri.path());
            problem(StatusCode::NOT_FOUND, "No such path", &detail)
        }
    }
}

/// Forwards to the registry. Changes need the token of the session.
async fn registry(State(server): State<Arc<Server>>, request: Request) -> Response {
    let is_change = request.method() != Method::GET && request.method() != Method::HEAD;
    if is_change && !server.is_allowed(request.headers()) {
        return problem(
            StatusCode::FORBIDDEN,
            "Forbidden",
            "To change something, open the link with the token that was printed at the start.",
        );
    }
    server
        .to_registry(request)
        .await
        .unwrap_or_else(IntoResponse::into_response)
}

/// The events of the registry, or of the bridge if the registry has none.
async fn events(State(server): State<Arc<Server>>, request: Request) -> Response {
    let token = server.registry_token(request.headers());
    match server.to_registry(request).await {
        Ok(response) if lacks_route(&response) => server.bridge.events(token).await,
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

async fn checks(State(server): State<Arc<Server>>, request: Request) -> Response {
    let token = server.registry_token(request.headers());
    let query = request.uri().query().unwrap_or_default().to_owned();
    match server.to_registry(request).await {
        Ok(response) if lacks_route(&response) => server.bridge.checks(&query, token).await,
        Ok(response) => response,
        Err(error) => error.into_response(),
    }
}

/// The traffic of the gateway, whose address is in the registry.
async fn traffic(State(server): State<Arc<Server>>, request: Request) -> Response {
    match server.gateway_address().await {
        Ok(Some(address)) => {
            let path = request
                .uri()
                .path_and_query()
                .map_or("", |path| path.as_str());
            let url = format!("http://{address}{path}");
            let forwarded = server
                .forward
                .send(&url, "the gateway", None, request)
                .await;
            forwarded.unwrap_or_else(IntoResponse::into_response)
        }
        Ok(None) => problem(
            StatusCode::BAD_GATEWAY,
            "No gateway",
            "No gateway is registered.",
        ),
        Err(error) => error.into_response(),
    }
}

/// Whether the registry doesn't know `/v1/waypost`: a Consul then responds with 404, or with its
/// own page.
fn lacks_route(response: &Response) -> bool {
    response.status() == StatusCode::NOT_FOUND || response.status() == StatusCode::MOVED_PERMANENTLY
}

impl Server {
    async fn to_registry(&self, request: Request) -> Result<Response, ForwardError> {
        let path = request
            .uri()
            .path_and_query()
            .map_or("", |path| path.as_str());
        let url = format!("{}{path}", self.config.registry);
        let token = self.config.registry_token.as_deref();
        self.forward
            .send(&url, "the registry", token, request)
            .await
    }

    /// The token for the registry: that of the server, or the one that the user has entered.
    fn registry_token(&self, headers: &HeaderMap) -> Option<String> {
        let given = headers
            .get("x-consul-token")
            .and_then(|token| token.to_str().ok());
        self.config
            .registry_token
            .clone()
            .or_else(|| given.map(str::to_owned))
    }

    fn is_allowed(&self, headers: &HeaderMap) -> bool {
        let given = headers
            .get(TOKEN_HEADER)
            .map_or(&b""[..], |token| token.as_bytes());
        let wanted = self.config.session_token.as_bytes();
        // Compares in constant time.
        let difference = given
            .iter()
            .zip(wanted)
            .fold(0, |all, (a, b)| all | (a ^ b));
        given.len() == wanted.len() && difference == 0
    }

    /// The URL of the gateway's traffic, from its registration.
    async fn gateway_address(&self) -> Result<Option<String>, ForwardError> {
        let Some(name) = &self.config.gateway else {
            return Ok(None);
        };
        let instances = self.instances(name).await?;
        let addresses = instances
            .iter()
            .filter_map(|it| it["Service"]["Meta"]["internal"].as_str());
        Ok(addresses.map(str::to_owned).next())
    }

    /// Forwards to a passing instance of a service.
    async fn service_page(
        &self,
        page: &ServicePage,
        request: Request,
    ) -> Result<Response, ForwardError> {
        let instances = self.instances(&page.service).await?;
        let Some(instance) = instances.first() else {
            let detail = format!("No instance of {} is ready.", page.service);
            return Ok(problem(StatusCode::BAD_GATEWAY, "Not ready", &detail));
        };
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let host = match text(&instance["Service"]["Address"]) {
            host if host.is_empty() => text(&instance["Node"]["Address"]),
            host => host,
        };
        let path = request
            .uri()
            .path_and_query()
            .map_or("", |path| path.as_str());
        let path = path.get(page.path.len() + 1..).unwrap_or("/").to_owned();
        let url = format!("http://{host}:{}{path}", instance["Service"]["Port"]);
        self.forward.send(&url, "the page", None, request).await
    }

    /// The passing instances of a service.
    async fn instances(&self, name: &str) -> Result<Vec<serde_json::Value>, ForwardError> {
        let url = format!("{}/v1/health/service/{name}?passing", self.config.registry);
        let token = self.config.registry_token.as_deref();
        let instances = self.forward.json(&url, "the registry", token).await?;
        Ok(instances.as_array().cloned().unwrap_or_default())
    }
}
