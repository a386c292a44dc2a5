//! `/v1/agent/metrics`, `/v1/agent/monitor` and `/v1/agent/host`. The metrics are the numbers of
//! registered items in Consul's format; those of Raft, gossip and the Go runtime don't exist here.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{Method, StatusCode};
use serde::Serialize;

use super::super::request::ApiRequest;
use super::super::response::{ApiError, ApiResponse};
use super::super::route::{Handler, Route};
use crate::monitor::LogLevel;

pub(in super::super) const ROUTES: &[Route] = &[
    Route::new(
        "/v1/agent/metrics",
        &[(Method::GET, Handler::Sync(metrics))],
    )
    .without_namespace(),
    Route::new(
        "/v1/agent/monitor",
        &[(Method::GET, Handler::Sync(monitor))],
    )
    .without_namespace(),
    Route::new("/v1/agent/host", &[(Method::GET, Handler::Sync(host))]).without_namespace(),
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

fn metrics(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    if request.query.get("format") == "prometheus" {
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "Prometheus is not enabled since its retention time is not positive",
        ));
    }
    let counts = request.app.store.read(|state| {
        let (_, nodes) = state.catalog.nodes();
        [
            ("consul.catalog.nodes", nodes.count()),
            ("consul.catalog.services", state.catalog.services().1.len()),
            ("consul.state.checks", state.local.checks().count()),
            ("consul.state.services", state.local.services().count()),
        ]
    });
    let memory = memory().map(|bytes| ("consul.runtime.alloc_bytes", bytes));
    let gauges = counts.into_iter().chain(memory);
    let gauges = gauges.map(|(name, value)| Gauge {
        name,
        value,
        labels: BTreeMap::new(),
    });
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = now.map_or(0, |since| since.as_secs());
    let start = UNIX_EPOCH + Duration::from_secs(seconds - seconds % 10);
    let start = humantime::format_rfc3339_seconds(start).to_string();
    // Consul aggregates metrics over intervals of ten seconds, and shows when the interval began.
    request.json(&Metrics {
        timestamp: start.replace('T', " ").replace('Z', " +0000 UTC"),
        gauges: gauges.collect(),
        points: [],
        counters: [],
        samples: [],
    })
}

/// The resident memory of this process in bytes, on systems with `/proc`.
fn memory() -> Option<usize> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: usize = resident.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024)
}

/// Streams further log lines.
fn monitor(request: &ApiRequest) -> Result<ApiResponse, ApiError> {
    let level = request.query.get("loglevel");
    let level = LogLevel::parse(level)
        .ok_or_else(|| ApiError::bad_request(format!("Bad request: Unknown log level: {level}")))?;
    Ok(ApiResponse::lines(request.app.monitor.subscribe(level)))
}

fn host(_: &ApiRequest) -> Result<ApiResponse, ApiError> {
    Err(ApiError::new(
        StatusCode::NOT_IMPLEMENTED,
        "This registry doesn't serve information about the host.",
    ))
}
