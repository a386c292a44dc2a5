//! The front page: the routes, their state and their traffic.

use std::fmt::Write as _;

use http::{Response, StatusCode};
use serde_json::json;

use super::response::{json_response, respond};
use crate::html;
use crate::problem::ErrorFormat;
use crate::response_body::ResponseBody;
use crate::routes::{Destination, Route, Routes};
use crate::service::Service;
use crate::traffic::{History, Traffic};

/// The number of routes on the page.
const MAX_ROUTES: usize = 500;
/// The seconds over which rates are averaged.
const RATE_SECONDS: u64 = 10;

pub(super) fn page(
    gateway: &str,
    routes: &Routes,
    traffic: &Traffic,
    format: ErrorFormat,
) -> Response<ResponseBody> {
    let routes = routes.all();
    if format != ErrorFormat::Html {
        let paths: Vec<_> = routes.iter().map(|route| path(route)).collect();
        let body = json!({"service": gateway, "routes": paths});
        return json_response(StatusCode::OK, &body);
    }
    let (history, _) = traffic.subscribe();
    let mut rows = String::new();
    for route in routes.iter().take(MAX_ROUTES) {
        let path = html::escape(&path(route));
        for Destination { service, .. } in route.destinations() {
            let (requests, failures) = rate(&history, service);
            let name = html::escape(service.name().as_str());
            let state = html::escape(&state(service));
            // Writing to a string can't fail.
            let _ = write!(
                rows,
                "<tr><td><a href=\"{path}\">{path}</a><td>{name}<td>{state}\
                 <td>{requests:.1}<td>{failures:.1}"
            );
        }
    }
    if rows.is_empty() {
        rows.push_str("<tr><td colspan=5>no services discovered yet");
    }
    let left_out = routes.len().saturating_sub(MAX_ROUTES);
    let more = if left_out > 0 {
        format!("<p>{left_out} more are not shown.</p>")
    } else {
        String::new()
    };
    let content = format!(
        "<h1>{}</h1><table><tr><th>route<th>service<th>instances<th>requests/s<th>failures/s{rows}</table>{more}",
        html::escape(gateway)
    );
    let page = html::page(gateway, &content);
    respond(StatusCode::OK, "text/html; charset=utf-8", page.into())
}

fn path(route: &Route) -> String {
    route.path().to_string()
}

/// How many instances are usable, as far as that is known without asking the registry.
fn state(service: &Service) -> String {
    match service.used_balancer() {
        None if service.is_listed() => "not used yet".into(),
        None => "none".into(),
        Some(balancer) => {
            let snapshot = balancer.snapshot();
            match snapshot.usable() {
                Ok(usable) => format!("{} of {}", usable.len(), snapshot.endpoints().len()),
                Err(error) => error.to_string(),
            }
        }
    }
}

/// Requests and failures per second.
fn rate(history: &History, service: &Service) -> (f64, f64) {
    let since = history.last_second.saturating_sub(RATE_SECONDS);
    let buckets = history.services.get(service.name().as_str());
    let recent = buckets
        .into_iter()
        .flatten()
        .filter(|bucket| bucket.unix_second > since);
    let (requests, failures) = recent.fold((0, 0), |(requests, failures), bucket| {
        (requests + bucket.requests, failures + bucket.failures)
    });
    let per_second = |count: u64| count as f64 / RATE_SECONDS as f64;
    (per_second(requests), per_second(failures))
}
