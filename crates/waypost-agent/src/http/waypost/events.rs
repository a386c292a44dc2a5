//! `/v1/waypost/events`: the services as server-sent events. The first event has all services. Each
//! later event has one service that has changed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::Method;
use serde::Serialize;
use tokio::sync::mpsc;
use tokio::sync::mpsc::Sender;
use tokio::time::{sleep, timeout};

use super::super::request::ApiRequest;
use super::super::response::{ApiError, ApiResponse};
use super::super::route::{Handler, Route};
use super::{health_history, rfc3339};
use crate::app::App;
use crate::store::{Check, CheckStatus, Instance, State, Topic};
use crate::text::truncate;
use crate::wall_clock;

pub(in super::super) const ROUTES: &[Route] = &[Route::new(
    "/v1/waypost/events",
    &[(Method::GET, Handler::Sync(events))],
)];

/// Changes within this time are sent together, for example when an instance registers with its
/// checks.
const DEBOUNCE: Duration = Duration::from_millis(50);

/// A comment is sent after this time without a change, so that proxies keep the connection.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// The number of events that a client may lag behind before the changes wait for it.
const BUFFERED_EVENTS: usize = 16;

/// The maximum output of a failing check that is sent, in bytes.
const MAX_OUTPUT: usize = 300;

/// Identifies a state of this agent. After a restart of the agent, earlier ids are not valid.
#[derive(Clone, Copy, PartialEq)]
struct EventId {
    started: u128,
    index: u64,
}

/// All services.
#[derive(Serialize)]
struct Snapshot<'a> {
    index: u64,
    node: &'a str,
    datacenter: &'a str,
    services: Vec<ServiceView>,
}

#[derive(Serialize)]
struct ServiceView {
    name: String,
    /// The tags of all instances.
    tags: Vec<String>,
    instances: Vec<InstanceView>,
}

#[derive(Serialize)]
struct InstanceView {
    id: String,
    node: String,
    address: String,
    port: i64,
    tags: Vec<String>,
    meta: BTreeMap<String, String>,
    /// The worst status of its checks.
    status: CheckStatus,
    /// When it got that status. `None` without checks.
    since: Option<String>,
    /// The first check that isn't passing.
    why: Option<Cause>,
    /// The time in Unix seconds and the status of each change in the last 15 minutes.
    history: Vec<(u64, &'static str)>,
}

#[derive(Serialize)]
struct Cause {
    check: String,
    output: String,
}

/// Starts the stream. `?after=ID` continues after the event with that id: only services that have
/// changed or were removed since then are sent.
fn events(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    let after = match request.query.get("after") {
        "" => None,
        text => Some(EventId::parse(text).ok_or_else(|| {
            ApiError::bad_request(format!("Invalid after {text:?}: use the id of an event"))
        })?),
    };
    let (sender, receiver) = mpsc::channel(BUFFERED_EVENTS);
    tokio::spawn(send_events(Arc::clone(&request.app), after, sender));
    Ok(ApiResponse::events(receiver))
}

/// Sends events until the client disconnects.
async fn send_events(app: Arc<App>, after: Option<EventId>, events: Sender<Bytes>) {
    let topics = [Topic::Services, Topic::Checks, Topic::Nodes];
    let watches = topics.map(|topic| app.store.watch(topic));
    let started = started(&app);
    let (mut index, mut names) = match after {
        Some(id) if id.started == started => (id.index, None),
        _ => {
            let (index, names, snapshot) = snapshot(&app, started);
            if events.send(snapshot).await.is_err() {
                return;
            }
            (index, Some(names))
        }
    };
    loop {
        let [services, checks, nodes] = watches.each_ref().map(|watch| watch.listen());
        let (newest, current, text) = changes(&app, EventId { started, index }, names.as_deref());
        (index, names) = (newest, Some(current));
        if !text.is_empty() && events.send(text.into()).await.is_err() {
            return;
        }
        let changed = async {
            tokio::select! {
                () = services => {}
                () = checks => {}
                () = nodes => {}
            }
        };
        tokio::select! {
            changed = timeout(KEEP_ALIVE, changed) => {
                if changed.is_ok() {
                    sleep(DEBOUNCE).await;
                } else if events.send(Bytes::from_static(b":\n\n")).await.is_err() {
                    return;
                }
            }
            () = events.closed() => return,
        }
    }
}

/// The event with all services. Also returns the index and the names of the services.
fn snapshot(app: &App, started: u128) -> (u64, Vec<String>, Bytes) {
    let now = wall_clock::now();
    app.store.read(|state| {
        let names = state.catalog.service_names();
        let snapshot = Snapshot {
            index: state.index(),
            node: &app.node_name,
            datacenter: &app.datacenter,
            services: names
                .iter()
                .map(|name| ServiceView::new(state, name, now))
                .collect(),
        };
        let id = EventId {
            started,
            index: snapshot.index,
        };
        let mut text = String::new();
        write_event(&mut text, "snapshot", id, &snapshot);
        (snapshot.index, names, text.into())
    })
}

/// The events for the changes after `last`. `known` are the names of the services that the client has
/// seen. If it is `None`, the client gets the names of all services. Also returns the index and the names
/// of the services.
fn changes(app: &App, last: EventId, known: Option<&[String]>) -> (u64, Vec<String>, String) {
    let now = wall_clock::now();
    app.store.read(|state| {
        let id = EventId {
            index: state.index(),
            ..last
        };
        let names = state.catalog.service_names();
        let mut text = String::new();
        if known.is_none() {
            let value = serde_json::json!({"names": names});
            write_event(&mut text, "names", id, &value);
        }
        for name in &names {
            if state.catalog.service_index(name) > last.index {
                let view = ServiceView::new(state, name, now);
                write_event(&mut text, "service", id, &view);
            }
        }
        for name in known.unwrap_or_default() {
            if !names.contains(name) {
                let value = serde_json::json!({"name": name});
                write_event(&mut text, "removed", id, &value);
            }
        }
        (id.index, names, text)
    })
}

fn write_event(text: &mut String, name: &str, id: EventId, data: &impl Serialize) {
    // Rows of the store can always be serialized, and JSON has no line breaks.
    let data = serde_json::to_string(data).unwrap_or_default();
    let EventId { started, index } = id;
    let _ = write!(
        text,
        "event: {name}\nid: {started}.{index}\ndata: {data}\n\n"
    );
}

/// When the agent started, in milliseconds.
fn started(app: &App) -> u128 {
    let since = app.started.duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_millis()
}

impl EventId {
    fn parse(text: &str) -> Option<Self> {
        let (started, index) = text.split_once('.')?;
        Some(Self {
            started: started.parse().ok()?,
            index: index.parse().ok()?,
        })
    }
}

impl ServiceView {
    fn new(state: &State, name: &str, now: SystemTime) -> Self {
        let instances: Vec<_> = state.catalog.instances(name).collect();
        let mut tags: Vec<_> = instances
            .iter()
            .flat_map(|instance| instance.service.tags.iter().cloned())
            .collect();
        tags.sort_unstable();
        tags.dedup();
        Self {
            name: name.to_owned(),
            tags,
            instances: instances
                .iter()
                .map(|instance| InstanceView::new(state, instance, now))
                .collect(),
        }
    }
}

impl InstanceView {
    fn new(state: &State, instance: &Instance, now: SystemTime) -> Self {
        let Instance {
            node,
            service,
            checks,
        } = instance;
        let status = checks.iter().map(|check| check.status).max();
        let history = health_history::changes(&state.check_history, instance, now);
        let address = match service.address.as_str() {
            "" => &node.address,
            address => address,
        };
        let failing = checks
            .iter()
            .find(|check| Some(check.status) == status && check.status != CheckStatus::Passing);
        Self {
            id: service.id.clone(),
            node: node.name.clone(),
            address: address.to_owned(),
            port: service.port,
            tags: service.tags.clone(),
            meta: service.meta.clone().unwrap_or_default(),
            status: status.unwrap_or(CheckStatus::Passing),
            since: history.last().map(|(time, _)| rfc3339(*time)),
            why: failing.map(|check| Cause::of(check)),
            history: history
                .into_iter()
                .map(|(time, status)| {
                    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
                    (
                        since.as_secs(),
                        status.map_or("removed", CheckStatus::as_str),
                    )
                })
                .collect(),
        }
    }
}

impl Cause {
    fn of(check: &Check) -> Self {
        let mut output = check.output.clone();
        truncate(&mut output, MAX_OUTPUT);
        Self {
            check: check.name.clone(),
            output,
        }
    }
}
