//! Provides `/v1/waypost` for registries that don't have it, such as Consul, by blocking queries. The
//! history of a check begins when the bridge first sees it.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use http::{HeaderMap, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::sync::mpsc::Sender;

use super::forward::innermost;
use super::problem::problem;

/// The wait of a blocking query.
const WAIT: &str = "240s";
/// The first and the longest pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// Changes within this time are read together.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// The number of services that are read concurrently.
const CONCURRENT_READS: usize = 8;
/// The number of changes that are kept for each check.
const MAX_CHANGES: usize = 256;
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Reads a registry for the page.
#[derive(Clone)]
pub(super) struct ConsulBridge {
    client: reqwest::Client,
    registry: String,
    token: Option<String>,
    history: Arc<Mutex<History>>,
}

/// The changes of each check, by node and id.
type History = HashMap<(String, String), VecDeque<Change>>;

#[derive(Clone)]
struct Change {
    time: SystemTime,
    status: String,
    output: String,
}

/// An instance as `/v1/health/service` returns it.
#[derive(Clone, Deserialize, PartialEq)]
#[serde(rename_all = "PascalCase")]
struct Instance {
    node: Node,
    service: Service,
    checks: Vec<Check>,
}

#[derive(Clone, Deserialize, PartialEq)]
#[serde(rename_all = "PascalCase")]
struct Node {
    #[serde(rename = "Node")]
    name: String,
    address: String,
}

#[derive(Clone, Deserialize, PartialEq)]
#[serde(rename_all = "PascalCase")]
struct Service {
    #[serde(rename = "ID")]
    id: String,
    address: String,
    port: i64,
    #[serde(default)]
    tags: Option<Vec<String>>,
    #[serde(default)]
    meta: Option<BTreeMap<String, String>>,
}

#[derive(Clone, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Check {
    node: String,
    #[serde(rename = "CheckID")]
    id: String,
    name: String,
    status: String,
    output: String,
    #[serde(rename = "ServiceID")]
    service_id: String,
    service_name: String,
    #[serde(default)]
    definition: Value,
}

/// Why the registry can't be read.
enum ReadError {
    /// The token is missing or not sufficient.
    Denied(String),
    Unreachable(String),
}

/// A response and its index.
struct Read<T> {
    index: u64,
    value: T,
}

impl ConsulBridge {
    pub(super) fn new(client: reqwest::Client, registry: &str, token: Option<String>) -> Self {
        Self {
            client,
            registry: registry.to_owned(),
            token,
            history: Arc::default(),
        }
    }

    /// A stream of events, as the embedded registry sends it. `token` replaces that of the bridge.
    pub(super) async fn events(&self, token: Option<String>) -> Response {
        let bridge = Self {
            token: token.or_else(|| self.token.clone()),
            ..self.clone()
        };
        // The first answer determines the status of the response.
        if let Err(error) = bridge.names(0).await {
            return error.into_response();
        }
        let (sender, receiver) = mpsc::channel(16);
        tokio::spawn(async move { bridge.send_events(sender).await });
        let events = stream::unfold(receiver, |mut receiver| async move {
            let event: String = receiver.recv().await?;
            Some((Ok::<_, Infallible>(event), receiver))
        });
        let headers = [
            ("content-type", "text/event-stream"),
            ("cache-control", "no-store"),
        ];
        (headers, Body::from_stream(events)).into_response()
    }

    /// The checks of the service in the query, with their history since the bridge was started.
    pub(super) async fn checks(&self, query: &str, token: Option<String>) -> Response {
        let bridge = Self {
            token: token.or_else(|| self.token.clone()),
            ..self.clone()
        };
        let name = query
            .split('&')
            .find_map(|pair| pair.strip_prefix("service="));
        let name = name.unwrap_or_default().to_owned();
        let path = format!("health/service/{name}");
        match bridge.read::<Vec<Instance>>(&path, 0).await {
            Ok(read) => {
                bridge.record(&read.value);
                let mut checks: Vec<_> = read.value.into_iter().flat_map(|it| it.checks).collect();
                checks.sort_by(|a, b| (&a.node, &a.id).cmp(&(&b.node, &b.id)));
                checks.dedup_by(|a, b| a.node == b.node && a.id == b.id);
                let views: Vec<_> = checks
                    .iter()
                    .map(|check| bridge.check_view(check))
                    .collect();
                axum::Json(views).into_response()
            }
            Err(error) => error.into_response(),
        }
    }

    /// Sends all services, and then services that change, until the page is closed.
    async fn send_events(&self, events: Sender<String>) {
        let mut known: Option<BTreeMap<String, Vec<Instance>>> = None;
        let (mut names_index, mut checks_index) = (0, 0);
        let mut pause = FIRST_PAUSE;
        let mut failing_since = None;
        loop {
            let changed = self.wait_for_change(names_index, checks_index);
            let services = tokio::select! {
                changed = keep_alive(&events, changed) => match changed {
                    Some(Ok((names, checks))) => {
                        (names_index, checks_index) = (names, checks);
                        self.services().await
                    }
                    Some(Err(error)) => Err(error),
                    None => return,
                },
                () = events.closed() => return,
            };
            let text = match services {
                Ok(services) => {
                    pause = FIRST_PAUSE;
                    let mut text = String::new();
                    if failing_since.take().is_some() {
                        text.push_str("event: recovered\ndata: {}\n\n");
                    }
                    text.push_str(&self.difference(known.as_ref(), &services));
                    known = Some(services);
                    text
                }
                Err(error) => {
                    // A restarted registry may count from the start again.
                    (names_index, checks_index) = (0, 0);
                    let is_new = failing_since.is_none();
                    let since = *failing_since.get_or_insert_with(SystemTime::now);
                    let data = json!({"since": rfc3339(since), "error": error.text()});
                    let text = if is_new {
                        format!("event: outage\ndata: {data}\n\n")
                    } else {
                        String::new()
                    };
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(MAX_PAUSE);
                    text
                }
            };
            if !text.is_empty() && events.send(text).await.is_err() {
                return;
            }
        }
    }

    /// Waits until the list of services or a check changes. Returns both indexes.
    async fn wait_for_change(&self, names: u64, checks: u64) -> Result<(u64, u64), ReadError> {
        if names == 0 || checks == 0 {
            let names = self.names(0).await?.index;
            let checks = self.read::<Value>("health/state/any", 0).await?.index;
            return Ok((names, checks));
        }
        let changed = tokio::select! {
            read = self.names(names) => (read?.index, checks),
            read = self.read::<Value>("health/state/any", checks) => (names, read?.index),
        };
        tokio::time::sleep(DEBOUNCE).await;
        Ok(changed)
    }

    async fn names(&self, index: u64) -> Result<Read<BTreeMap<String, Value>>, ReadError> {
        self.read("catalog/services", index).await
    }

    /// All services with their instances.
    async fn services(&self) -> Result<BTreeMap<String, Vec<Instance>>, ReadError> {
        let names = self.names(0).await?.value.into_keys();
        let mut reads = stream::iter(names)
            .map(|name| async move {
                let path = utf8_percent_encode(&name, NON_ALPHANUMERIC).to_string();
                let read = self.read(&format!("health/service/{path}"), 0).await?;
                Ok::<_, ReadError>((name, read.value))
            })
            .buffer_unordered(CONCURRENT_READS);
        let mut services = BTreeMap::new();
        while let Some(read) = reads.next().await {
            let (name, instances): (String, Vec<Instance>) = read?;
            self.record(&instances);
            if !instances.is_empty() {
                services.insert(name, instances);
            }
        }
        Ok(services)
    }

    /// Reads JSON from the registry. With an index, waits until there is a newer one.
    async fn read<T: DeserializeOwned>(
        &self,
        path: &str,
        index: u64,
    ) -> Result<Read<T>, ReadError> {
        let mut url = format!("{}/v1/{path}", self.registry);
        if index > 0 {
            url.push_str(&format!("?index={index}&wait={WAIT}"));
        }
        let mut request = self.client.get(url);
        if let Some(token) = &self.token {
            request = request.header("x-consul-token", token);
        }
        let unreachable = |error: reqwest::Error| ReadError::Unreachable(innermost(&error));
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        if status == StatusCode::FORBIDDEN || status == StatusCode::UNAUTHORIZED {
            return Err(ReadError::Denied(response.text().await.unwrap_or_default()));
        }
        if !status.is_success() {
            let text = response.text().await.unwrap_or_default();
            return Err(ReadError::Unreachable(format!("{status}: {}", text.trim())));
        }
        let index = index_of(response.headers());
        let value = response.json().await.map_err(unreachable)?;
        Ok(Read { index, value })
    }

    // === History ===

    /// Adds the changes of the checks of instances.
    fn record(&self, instances: &[Instance]) {
        let now = SystemTime::now();
        let mut history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        for check in instances.iter().flat_map(|instance| &instance.checks) {
            let key = (check.node.clone(), check.id.clone());
            let changes = history.entry(key).or_default();
            if changes
                .back()
                .is_some_and(|last| last.status == check.status)
            {
                continue;
            }
            if changes.len() == MAX_CHANGES {
                changes.pop_front();
            }
            changes.push_back(Change {
                time: now,
                status: check.status.clone(),
                output: check.output.chars().take(500).collect(),
            });
        }
    }

    fn changes_of(&self, check: &Check) -> Vec<Change> {
        let history = self.history.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (check.node.clone(), check.id.clone());
        history.get(&key).into_iter().flatten().cloned().collect()
    }

    // === Views ===

    /// The events that update the page to `services`.
    fn difference(
        &self,
        known: Option<&BTreeMap<String, Vec<Instance>>>,
        services: &BTreeMap<String, Vec<Instance>>,
    ) -> String {
        let view = |name: &String, instances: &[Instance]| self.service_view(name, instances);
        let Some(known) = known else {
            let services: Vec<_> = services.iter().map(|(name, it)| view(name, it)).collect();
            let node = "";
            let data = json!({"index": 0, "node": node, "datacenter": "", "services": services});
            return format!("event: snapshot\ndata: {data}\n\n");
        };
        let mut text = String::new();
        for (name, instances) in services {
            if known.get(name) != Some(instances) {
                text.push_str(&format!(
                    "event: service\ndata: {}\n\n",
                    view(name, instances)
                ));
            }
        }
        for name in known.keys().filter(|name| !services.contains_key(*name)) {
            let data = json!({"name": name});
            text.push_str(&format!("event: removed\ndata: {data}\n\n"));
        }
        text
    }

    fn service_view(&self, name: &str, instances: &[Instance]) -> Value {
        let mut tags: Vec<_> = instances
            .iter()
            .flat_map(|it| it.service.tags.clone().unwrap_or_default())
            .collect();
        tags.sort_unstable();
        tags.dedup();
        let instances: Vec<_> = instances.iter().map(|it| self.instance_view(it)).collect();
        json!({"name": name, "tags": tags, "instances": instances})
    }

    fn instance_view(&self, instance: &Instance) -> Value {
        let Instance {
            node,
            service,
            checks,
        } = instance;
        let worst = checks.iter().max_by_key(|check| severity(&check.status));
        let status = worst.map_or("passing", |check| &check.status);
        let cause = worst.filter(|check| severity(&check.status) > 0);
        let changes = worst
            .map(|check| self.changes_of(check))
            .unwrap_or_default();
        let history: Vec<_> = changes
            .iter()
            .map(|change| {
                let since = change.time.duration_since(UNIX_EPOCH).unwrap_or_default();
                json!([since.as_secs(), change.status])
            })
            .collect();
        let address = if service.address.is_empty() {
            &node.address
        } else {
            &service.address
        };
        json!({
            "id": service.id, "node": node.name, "address": address, "port": service.port,
            "tags": service.tags.clone().unwrap_or_default(),
            "meta": service.meta.clone().unwrap_or_default(),
            "status": status,
            "since": changes.last().map(|change| rfc3339(change.time)),
            "why": cause.map(|check| json!({"check": check.name, "output": check.output})),
            "history": history,
        })
    }

    fn check_view(&self, check: &Check) -> Value {
        let changes = self.changes_of(check);
        let history: Vec<_> = changes
            .iter()
            .map(|it| json!({"Time": rfc3339(it.time), "Status": it.status, "Output": it.output}))
            .collect();
        let mut view = json!(check);
        view["LastChanged"] = json!(changes.last().map(|change| rfc3339(change.time)));
        view["Runs"] = json!(0);
        view["LastRun"] = Value::Null;
        view["NextRun"] = Value::Null;
        view["History"] = json!(history);
        view
    }
}

/// Sends comments while a future runs, so that proxies keep the connection. `None` if the page was
/// closed.
async fn keep_alive<T>(events: &Sender<String>, future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    loop {
        match tokio::time::timeout(KEEP_ALIVE, &mut future).await {
            Ok(result) => return Some(result),
            Err(_) => events.send(":\n\n".to_owned()).await.ok()?,
        }
    }
}

fn severity(status: &str) -> u8 {
    match status {
        "passing" => 0,
        "warning" => 1,
        _ => 2,
    }
}

fn index_of(headers: &HeaderMap) -> u64 {
    let index = headers
        .get("x-consul-index")
        .and_then(|index| index.to_str().ok());
    index
        .and_then(|index| index.parse().ok())
        .unwrap_or_default()
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(time.max(UNIX_EPOCH)).to_string()
}

impl ReadError {
    fn text(&self) -> &str {
        let (Self::Denied(text) | Self::Unreachable(text)) = self;
        text
    }
}

impl IntoResponse for ReadError {
    fn into_response(self) -> Response {
        match self {
            Self::Denied(text) => problem(StatusCode::FORBIDDEN, "Forbidden", text.trim()),
            Self::Unreachable(text) => {
                let detail = format!("the registry can't be read: {text}");
                problem(StatusCode::BAD_GATEWAY, "Not reachable", &detail)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_status_is_the_most_severe() {
        let mut statuses = ["maintenance", "passing", "warning", "critical"];
        statuses.sort_by_key(|status| severity(status));
        assert_eq!(statuses[..2], ["passing", "warning"]);
        assert_eq!(severity("passing"), 0, "which needs no reason");
    }

    #[tokio::test]
    async fn an_error_of_the_registry_is_passed_on() {
        for (error, status) in [
            (ReadError::Denied("Permission denied\n".to_owned()), 403),
            (ReadError::Unreachable("refused".to_owned()), 502),
        ] {
            let text = error.text().trim().to_owned();
            assert!(["Permission denied", "refused"].contains(&&*text));
            let response = error.into_response();
            assert_eq!(response.status().as_u16(), status);
            let body = axum::body::to_bytes(response.into_body(), 1000)
                .await
                .unwrap();
            let body = String::from_utf8_lossy(&body);
            assert!(body.contains(&text), "{body}");
        }
    }

    #[test]
    fn the_index_of_a_response_is_0_if_it_has_none() {
        for (value, expected) in [("17", 17), ("", 0), ("x", 0)] {
            let mut headers = HeaderMap::new();
            headers.insert("x-consul-index", value.parse().unwrap());
            assert_eq!(index_of(&headers), expected);
        }
        assert_eq!(index_of(&HeaderMap::new()), 0);
    }
}
