//! `/metrics`, in the text format of Prometheus.

use std::fmt::Write as _;
use std::sync::atomic::Ordering;

use http::{Response, StatusCode};
use waypost::outlier::BalanceCounters;

use super::response::respond;
use crate::access_log::LostLines;
use crate::response_body::ResponseBody;
use crate::routes::Routes;
use crate::spans::SpanCounts;
use crate::traffic::{ServiceCounts, Traffic};

/// The maximum number of services that are listed, so that a scrape stays small.
const MAX_SERVICES: usize = 1000;
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];

/// The metrics of one counter: its name, what it counts, and its value.
type Counter = (&'static str, &'static str, fn(&ServiceCounts) -> u64);

const COUNTERS: [Counter; 5] = [
    (
        "waypost_gateway_failures_total",
        "Requests that got a 5xx or an incomplete response.",
        |counts| counts.failures,
    ),
    (
        "waypost_gateway_retries_total",
        "Attempts after the first.",
        |counts| counts.retries,
    ),
    (
        "waypost_gateway_client_closed_total",
        "Requests whose client disconnected before the end of the response.",
        |counts| counts.client_closed,
    ),
    (
        "waypost_gateway_request_bytes_total",
        "Bytes of request bodies.",
        |counts| counts.request_bytes,
    ),
    (
        "waypost_gateway_response_bytes_total",
        "Bytes of response bodies.",
        |counts| counts.response_bytes,
    ),
];

pub(super) fn page(
    routes: &Routes,
    traffic: &Traffic,
    spans: Option<SpanCounts>,
    lost_lines: Option<&LostLines>,
) -> Response<ResponseBody> {
    let mut services: Vec<_> = traffic.totals().into_iter().collect();
    services.sort_by(|a, b| a.0.cmp(&b.0));
    services.truncate(MAX_SERVICES);
    let mut out = String::new();
    // Writing to a string can't fail. Names of services contain nothing that needs escaping.
    let _ = write_all(&mut out, routes, &services);
    if let Some(spans) = spans {
        let _ = write_spans(&mut out, spans);
    }
    if let Some(lost) = lost_lines {
        let _ = write_lost_lines(&mut out, lost);
    }
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    respond(StatusCode::OK, kind, out.into())
}

fn write_all(
    out: &mut String,
    routes: &Routes,
    services: &[(std::sync::Arc<str>, ServiceCounts)],
) -> std::fmt::Result {
    let requests = "waypost_gateway_requests_total";
    head(out, requests, "counter", "Requests by class of status.")?;
    for (name, counts) in services {
        for (class, count) in CLASSES.iter().zip(counts.by_class) {
            if count > 0 {
                writeln!(
                    out,
                    "{requests}{{service=\"{name}\",class=\"{class}\"}} {count}"
                )?;
            }
        }
    }
    for (metric, help, value) in COUNTERS {
        head(out, metric, "counter", help)?;
        for (name, counts) in services {
            writeln!(out, "{metric}{{service=\"{name}\"}} {}", value(counts))?;
        }
    }
    let latency = "waypost_gateway_first_byte_seconds";
    head(
        out,
        latency,
        "histogram",
        "Time to the head of the response.",
    )?;
    for (name, counts) in services {
        // Every fourth bound: about a factor of 2.4 from one to the next.
        for (micros, count) in counts.latencies.cumulative().step_by(4) {
            let bound = f64::from(micros) / 1e6;
            writeln!(
                out,
                "{latency}_bucket{{service=\"{name}\",le=\"{bound}\"}} {count}"
            )?;
        }
        let (sum, count) = (counts.latencies.sum as f64 / 1e6, counts.requests);
        writeln!(
            out,
            "{latency}_bucket{{service=\"{name}\",le=\"+Inf\"}} {count}"
        )?;
        writeln!(out, "{latency}_sum{{service=\"{name}\"}} {sum}")?;
        writeln!(out, "{latency}_count{{service=\"{name}\"}} {count}")?;
    }
    let gauges: [(&str, &str, &str); 3] = [
        (
            "waypost_gateway_ejected_instances",
            "gauge",
            "Instances that are ejected now.",
        ),
        ("waypost_gateway_ejections_total", "counter", "Ejections."),
        (
            "waypost_gateway_stale_seconds",
            "gauge",
            "Age of the instances while the registry fails, otherwise 0.",
        ),
    ];
    let services = routes.all_services();
    let used = services
        .iter()
        .filter_map(|service| Some((service.name(), service.used_balancer()?)))
        .take(MAX_SERVICES);
    for (metric, kind, help) in gauges {
        head(out, metric, kind, help)?;
        for (name, balancer) in used.clone() {
            let counters = balancer.counters();
            let snapshot = balancer.snapshot();
            let freshness = snapshot.freshness();
            let value = match metric {
                "waypost_gateway_ejected_instances" => counters.ejected_now as f64,
                "waypost_gateway_ejections_total" => ejections(&counters) as f64,
                _ if freshness.is_stale() => freshness.age().map_or(0.0, |age| age.as_secs_f64()),
                _ => 0.0,
            };
            writeln!(out, "{metric}{{service=\"{}\"}} {value}", name.as_str())?;
        }
    }
    Ok(())
}

fn write_spans(out: &mut String, spans: SpanCounts) -> std::fmt::Result {
    let exported = "waypost_gateway_spans_exported_total";
    head(
        out,
        exported,
        "counter",
        "Spans that the collector accepted.",
    )?;
    writeln!(out, "{exported} {}", spans.exported)?;
    let reasons = [
        ("not_accepted", spans.not_accepted),
        ("queue_full", spans.queue_full),
    ];
    let (lost, help) = (
        "waypost_gateway_spans_lost_total",
        "Spans that were not exported, by reason.",
    );
    write_by_reason(out, lost, help, reasons)
}

fn write_lost_lines(out: &mut String, lost: &LostLines) -> std::fmt::Result {
    let reasons = [
        ("queue_full", lost.queue_full.load(Ordering::Relaxed)),
        ("write_failed", lost.write_failed.load(Ordering::Relaxed)),
    ];
    let (lost, help) = (
        "waypost_gateway_access_log_lines_lost_total",
        "Lines of the access log that were not written, by reason.",
    );
    write_by_reason(out, lost, help, reasons)
}

fn write_by_reason(
    out: &mut String,
    metric: &str,
    help: &str,
    reasons: [(&str, u64); 2],
) -> std::fmt::Result {
    head(out, metric, "counter", help)?;
    for (reason, count) in reasons {
        writeln!(out, "{metric}{{reason=\"{reason}\"}} {count}")?;
    }
    Ok(())
}

fn ejections(counters: &BalanceCounters) -> u64 {
    counters.ejected_consecutive_failures
        + counters.ejected_success_rate
        + counters.ejected_overloaded
        + counters.ejected_probe_failed
        + counters.ejected_active_check
}

fn head(out: &mut String, metric: &str, kind: &str, help: &str) -> std::fmt::Result {
    writeln!(out, "# HELP {metric} {help}\n# TYPE {metric} {kind}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ejections_of_every_cause_are_counted() {
        let mut counters = BalanceCounters::default();
        counters.ejected_consecutive_failures = 1;
        counters.ejected_success_rate = 10;
        counters.ejected_overloaded = 100;
        counters.ejected_probe_failed = 1000;
        counters.ejected_active_check = 10_000;
        counters.ejections_overflow = 100_000;
        assert_eq!(ejections(&counters), 11_111);
    }

    #[test]
    fn lost_spans_and_lines_are_counted_by_reason() {
        let mut out = String::new();
        let spans = SpanCounts {
            exported: 1,
            not_accepted: 2,
            queue_full: 3,
        };
        write_spans(&mut out, spans).unwrap();
        let lost = LostLines::default();
        lost.queue_full.store(4, Ordering::Relaxed);
        lost.write_failed.store(5, Ordering::Relaxed);
        write_lost_lines(&mut out, &lost).unwrap();
        let samples: Vec<_> = out.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(
            samples,
            [
                "waypost_gateway_spans_exported_total 1",
                "waypost_gateway_spans_lost_total{reason=\"not_accepted\"} 2",
                "waypost_gateway_spans_lost_total{reason=\"queue_full\"} 3",
                "waypost_gateway_access_log_lines_lost_total{reason=\"queue_full\"} 4",
                "waypost_gateway_access_log_lines_lost_total{reason=\"write_failed\"} 5",
            ]
        );
        assert_eq!(
            out.lines()
                .filter(|line| line.ends_with(" counter"))
                .count(),
            3
        );
    }
}
