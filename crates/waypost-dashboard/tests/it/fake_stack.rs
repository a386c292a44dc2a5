//! A fake stack: it responds like the runner, the registry and the gateway, and is controlled by the
//! test.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::{Stream, StreamExt, stream};
use serde_json::{Value, json};
use tokio::sync::broadcast;
use waypost_dashboard::{Dashboard, Sources};

use crate::server::Server;

/// The token of the session.
pub(crate) const TOKEN: &str = "secret-of-the-session";

#[derive(Clone)]
pub(crate) struct FakeStack {
    shared: Arc<Shared>,
}

struct Shared {
    world: Mutex<World>,
    events: broadcast::Sender<(Channel, String)>,
    requests: AtomicU64,
    bytes: Arc<AtomicU64>,
    dashboard: Dashboard,
}

#[derive(Clone, Copy, PartialEq)]
enum Channel {
    Stack,
    Registry,
    Traffic,
    Logs,
}

#[derive(Default)]
struct World {
    services: BTreeMap<String, Value>,
    registered: BTreeMap<String, Value>,
    checks: BTreeMap<String, Value>,
    traffic: Value,
    /// The last traffic event, which streams that open later get, too.
    last_traffic: String,
    lines: Vec<Value>,
    keys: BTreeMap<String, (String, u64)>,
    /// The received actions: the verb, the service and the body.
    actions: Vec<(String, String, Value)>,
    event_id: u64,
    streams: usize,
}

/// A time that many seconds ago as in RFC 3339.
pub(crate) fn ago(seconds: u64) -> String {
    let milliseconds = (now() - seconds) * 1000;
    let time = UNIX_EPOCH + Duration::from_millis(milliseconds);
    humantime::format_rfc3339_millis(time).to_string()
}

pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs()
}

impl FakeStack {
    /// A gateway without a stack or a registry.
    pub(crate) fn gateway() -> Self {
        Self::with_sources(&Sources {
            traffic: Some("internal/traffic".into()),
            ..Sources::default()
        })
    }

    /// A stack without services.
    pub(crate) fn new() -> Self {
        Self::with_sources(&Sources {
            stack: Some("api/".into()),
            registry: Some("v1/".into()),
            registry_kind: Some("embedded".into()),
            traffic: Some("internal/traffic".into()),
            links: [("AI models demo".to_owned(), "try/ai-models/".to_owned())].into(),
            ..Sources::default()
        })
    }

    fn with_sources(sources: &Sources) -> Self {
        Self {
            shared: Arc::new(Shared {
                world: Mutex::new(World {
                    traffic: json!({}),
                    ..World::default()
                }),
                events: broadcast::channel(4096).0,
                requests: AtomicU64::new(0),
                bytes: Arc::default(),
                dashboard: Dashboard::new(sources),
            }),
        }
    }

    pub(crate) async fn serve(&self) -> Server {
        Server::start(self.router()).await
    }

    /// Serves at the address of a server that has stopped.
    pub(crate) async fn serve_at(&self, url: &str) -> Server {
        Server::start_at(url, self.router()).await
    }

    fn router(&self) -> Router {
        Router::new()
            .route("/api/events", get(stack_events))
            .route("/api/logs", get(log_events))
            .route("/api/services/{name}/environment", get(environment))
            .route("/api/services/{name}/{verb}", post(act))
            .route("/v1/waypost/events", get(registry_events))
            .route("/v1/waypost/checks", get(checks))
            .route("/v1/kv/{*key}", get(read_key).put(write_key))
            .route("/v1/kv/", get(list_keys))
            .route("/v1/catalog/nodes", get(nodes))
            .route("/v1/agent/self", get(agent))
            .route("/internal/traffic", get(traffic_events))
            .fallback(page)
            .layer(from_fn_with_state(self.clone(), count))
            .with_state(self.clone())
    }

    fn world<T>(&self, use_it: impl FnOnce(&mut World) -> T) -> T {
        use_it(&mut self.shared.world.lock().unwrap())
    }

    fn send(&self, channel: Channel, name: &str, data: &Value) {
        // Sent while the world is locked, so that a stream gets each event exactly once.
        self.world(|world| {
            world.event_id += 1;
            let event = format!("event: {name}\nid: {}\ndata: {data}\n\n", world.event_id);
            if channel == Channel::Traffic {
                world.last_traffic.clone_from(&event);
            }
            let _ = self.shared.events.send((channel, event));
        });
    }

    /// Adds or changes a service of the stack.
    pub(crate) fn set_service(&self, service: Value) {
        let name = service["name"].as_str().unwrap().to_owned();
        self.world(|world| world.services.insert(name, service.clone()));
        self.send(Channel::Stack, "service", &service);
    }

    pub(crate) fn service(&self, name: &str) -> Value {
        self.world(|world| world.services[name].clone())
    }

    /// Adds or changes a service in the registry.
    pub(crate) fn set_registered(&self, service: Value) {
        let name = service["name"].as_str().unwrap().to_owned();
        self.world(|world| world.registered.insert(name, service.clone()));
        self.send(Channel::Registry, "service", &service);
    }

    pub(crate) fn set_checks(&self, service: &str, checks: Value) {
        self.world(|world| world.checks.insert(service.to_owned(), checks));
    }

    pub(crate) fn set_key(&self, key: &str, value: &str) {
        self.world(|world| {
            world.event_id += 1;
            let index = world.event_id + 40;
            world.keys.insert(key.to_owned(), (value.to_owned(), index));
        });
    }

    pub(crate) fn key(&self, key: &str) -> Option<String> {
        self.world(|world| world.keys.get(key).map(|(value, _)| value.clone()))
    }

    /// The traffic until now.
    pub(crate) fn set_traffic(&self, services: Value) {
        self.world(|world| world.traffic = services);
    }

    /// The routes of the gateway, the names that aren't valid, and why its registry can't be read.
    pub(crate) fn set_routes(
        &self,
        routes: &Value,
        ignored: &[(&str, &str)],
        outage: Option<&str>,
    ) {
        let names = ignored
            .iter()
            .map(|(name, why)| json!({"name": name, "why": why}));
        let ignored = json!({"count": ignored.len(), "names": names.collect::<Vec<_>>()});
        let data = json!({"routes": routes, "left_out": 0, "ignored": ignored, "outage": outage, "age_seconds": 0});
        self.send(Channel::Traffic, "routes", &data);
    }

    /// The traffic of one second.
    pub(crate) fn second(&self, services: &Value) {
        let data = json!({"second": now(), "services": services});
        self.send(Channel::Traffic, "second", &data);
    }

    pub(crate) fn log(
        &self,
        seconds_ago: u64,
        instance: &str,
        stream: &str,
        level: Option<&str>,
        text: &str,
    ) {
        let service = instance
            .rsplit_once('-')
            .filter(|(_, number)| number.parse::<u8>().is_ok());
        let service = service.map_or(instance, |(service, _)| service);
        let line = self.world(|world| {
            let id = world.lines.len();
            let time = ago(seconds_ago).replace(".000Z", &format!(".{:03}Z", id * 37 % 1000));
            let line = json!({"id": id, "time": time, "service": service, "instance": instance,
                "stream": stream, "level": level, "text": text});
            world.lines.push(line.clone());
            line
        });
        self.send(Channel::Logs, "line", &line);
    }

    pub(crate) fn actions(&self) -> Vec<(String, String, Value)> {
        self.world(|world| world.actions.clone())
    }

    pub(crate) fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// The bytes of event streams so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.shared.bytes.load(Ordering::Relaxed)
    }

    /// The number of event streams that have been opened.
    pub(crate) fn streams(&self) -> usize {
        self.world(|world| world.streams)
    }

    fn stream(&self, channel: Channel, first: impl FnOnce(&World) -> String) -> Response {
        let (first, events) = self.world(|world| {
            world.streams += 1;
            (first(world), self.shared.events.subscribe())
        });
        let rest = stream::unfold(events, move |mut events| async move {
            loop {
                let (sent_to, event) = events.recv().await.ok()?;
                if sent_to == channel {
                    return Some((event, events));
                }
            }
        });
        let bytes = Arc::clone(&self.shared.bytes);
        let all: std::pin::Pin<Box<dyn Stream<Item = String> + Send>> =
            Box::pin(stream::once(std::future::ready(first)).chain(rest));
        let body = all.map(move |event| {
            bytes.fetch_add(event.len() as u64, Ordering::Relaxed);
            Ok::<_, Infallible>(event)
        });
        let kind = [(header::CONTENT_TYPE, "text/event-stream")];
        (kind, Body::from_stream(body)).into_response()
    }
}

async fn count(State(stack): State<FakeStack>, request: Request, next: Next) -> Response {
    stack.shared.requests.fetch_add(1, Ordering::Relaxed);
    next.run(request).await
}

async fn page(State(stack): State<FakeStack>, uri: Uri, headers: HeaderMap) -> Response {
    let found = stack
        .shared
        .dashboard
        .respond(uri.path().trim_start_matches('/'), &headers);
    match found {
        Some(response) => response.map(Body::from),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn stack_events(State(stack): State<FakeStack>) -> Response {
    stack.stream(Channel::Stack, |world| {
        let services: Vec<_> = world.services.values().collect();
        let data = json!({"schema": 1, "name": "shop", "file": "/home/dana/shop/waypost.toml",
        "directory": "/home/dana/shop", "started_at": "2026-01-01T12:00:00Z", "pid": 1,
        "registry": "http://localhost:8500", "gateway": "http://localhost:8000",
        "dashboard": "http://localhost:3000", "services": services});
        format!("event: snapshot\nid: 0\ndata: {data}\n\n")
    })
}

async fn log_events(State(stack): State<FakeStack>) -> Response {
    stack.stream(Channel::Logs, |world| {
        let lines = world.lines.iter();
        let events = lines.map(|line| format!("event: line\nid: {}\ndata: {line}\n\n", line["id"]));
        events.collect::<String>() + ":\n\n"
    })
}

async fn registry_events(State(stack): State<FakeStack>) -> Response {
    stack.stream(Channel::Registry, |world| {
        let services: Vec<_> = world.registered.values().collect();
        let data = json!({"index": 1, "node": "laptop", "datacenter": "dc1", "services": services});
        format!("event: snapshot\nid: 1.1\ndata: {data}\n\n")
    })
}

async fn traffic_events(State(stack): State<FakeStack>) -> Response {
    stack.stream(Channel::Traffic, |world| {
        let data = json!({"second": now(), "services": world.traffic});
        format!("event: snapshot\ndata: {data}\n\n{}", world.last_traffic)
    })
}

async fn act(
    State(stack): State<FakeStack>,
    Path((name, verb)): Path<(String, String)>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> Response {
    if headers
        .get("x-waypost-token")
        .is_none_or(|token| token != TOKEN)
    {
        let problem =
            json!({"title": "Forbidden", "detail": "the token of the session is missing"});
        return (StatusCode::FORBIDDEN, Json(problem)).into_response();
    }
    stack.world(|world| world.actions.push((verb, name.clone(), body)));
    (StatusCode::ACCEPTED, Json(stack.service(&name))).into_response()
}

async fn environment() -> Json<Value> {
    Json(json!([
        {"name": "DATABASE_URL", "value": "", "masked": true, "source": "env-file .env"},
        {"name": "LOG_LEVEL", "value": "info", "masked": false, "source": "env"},
        {"name": "PORT", "value": "4100", "masked": false, "source": "waypost"},
        {"name": "SERVICE_REGISTRY_HOST", "value": "127.0.0.1", "masked": false, "source": "waypost"},
    ]))
}

async fn checks(
    State(stack): State<FakeStack>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Json<Value> {
    Json(stack.world(|world| {
        world
            .checks
            .get(&query["service"])
            .cloned()
            .unwrap_or(json!([]))
    }))
}

async fn list_keys(State(stack): State<FakeStack>) -> Json<Vec<String>> {
    Json(stack.world(|world| world.keys.keys().cloned().collect()))
}

async fn read_key(State(stack): State<FakeStack>, Path(key): Path<String>) -> Response {
    match stack.world(|world| world.keys.get(&key).cloned()) {
        Some((value, index)) => {
            let value = data_encoding::BASE64.encode(value.as_bytes());
            Json(json!([{"Key": key, "Value": value, "ModifyIndex": index, "Flags": 0}]))
                .into_response()
        }
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn write_key(
    State(stack): State<FakeStack>,
    Path(key): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
    body: String,
) -> String {
    let index: u64 = query["cas"].parse().unwrap();
    let known = stack.world(|world| world.keys.get(&key).map_or(0, |(_, index)| *index));
    if known == index {
        stack.set_key(&key, &body);
    }
    (known == index).to_string()
}

async fn nodes() -> Json<Value> {
    Json(
        json!([{"ID": "6f1c0d9e-2b1c-4b5e-9a47-0a4f6f3a9c11", "Node": "laptop", "Address": "127.0.0.1",
        "Datacenter": "dc1", "Meta": {"os": "linux"}}]),
    )
}

async fn agent() -> Json<Value> {
    Json(json!({"DebugConfig": {"DNSPort": 8600}}))
}
