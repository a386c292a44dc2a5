//! `/v1/agent/metrics` and `/v1/agent/monitor`: how much is registered, in the shape in which Consul shows its metrics.
//! What belongs to Consul's inner life (Raft, gossip, its runtime) has no counterpart here.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{Method, StatusCode};
use serde::Serialize;

use super::super::call::Call;
use super::super::reply::{Refusal, Reply};
use super::super::route::{Handler, Route};
use crate::monitor::Level;

pub(in super::super) const ROUTES: &[Route] = &[
    Route::new(
        "/v1/agent/metrics",
        &[(Method::GET, Handler::Plain(metrics))],
    )
    .beyond_namespaces(),
    Route::new(
        "/v1/agent/monitor",
        &[(Method::GET, Handler::Plain(monitor))],
    )
    .beyond_namespaces(),
    Route::new("/v1/agent/host", &[(Method::GET, Handler::Plain(host))]).beyond_namespaces(),
];

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Metrics {
    timestamp: String,
    gauges: Vec<Gauge>,
    points: [(); 0],
    counters: [(); 0],
    samples: [(); 0],
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Gauge {
    name: &'static str,
    value: usize,
    labels: BTreeMap<String, String>,
}

fn metrics(call: &Call) -> Result<Reply, Refusal> {
    if call.query.get("format") == "prometheus" {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Prometheus is not enabled since its retention time is not positive",
        ));
    }
    let counted = call.app.store.read(|state| {
        let (_, nodes) = state.catalog.nodes();
        [
            ("consul.catalog.nodes", nodes.count()),
            ("consul.catalog.services", state.catalog.services().1.len()),
            ("consul.state.checks", state.local.checks().count()),
            ("consul.state.services", state.local.services().count()),
        ]
    });
    let memory = memory().map(|bytes| ("consul.runtime.alloc_bytes", bytes));
    let gauges = counted.into_iter().chain(memory);
    let gauges = gauges.map(|(name, value)| Gauge {
        name,
        value,
        labels: BTreeMap::new(),
    });
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = now.map_or(0, |since| since.as_secs());
    let began = UNIX_EPOCH + Duration::from_secs(seconds - seconds % 10);
    let began = humantime::format_rfc3339_seconds(began).to_string();
    // Consul adds up ten seconds at a time, and says when they began.
    call.json(&Metrics {
        timestamp: began.replace('T', " ").replace('Z', " +0000 UTC"),
        gauges: gauges.collect(),
        points: [],
        counters: [],
        samples: [],
    })
}

/// What this process has in memory, in bytes, where the system tells.
fn memory() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: usize = resident.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Streams the log, from now on.
fn monitor(call: &Call) -> Result<Reply, Refusal> {
    let level = call.query.get("loglevel");
    let level = Level::parse(level)
        .ok_or_else(|| Refusal::bad_request(format!("Bad request: Unknown log level: {level}")))?;
    Ok(Reply::lines(call.app.monitor.listen(level)))
}

fn host(_: &Call) -> Result<Reply, Refusal> {
    Err(Refusal::new(
        StatusCode::NOT_IMPLEMENTED,
        "Facts about the machine aren't served by this registry.",
    ))
}
