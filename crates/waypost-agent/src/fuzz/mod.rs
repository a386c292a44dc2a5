//! Fuzz targets for untrusted input. No input may cause a panic, a hang or unbounded memory use.
//!
//! Not part of the API. The fuzzers in the folder `fuzz` of the repository call these functions; the
//! tests below call them with mutated seeds for a few seconds.

use std::cell::OnceCell;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};

use bytes::Bytes;
use http::{Method, Request, Uri};
use http_body_util::Full;
use tokio::runtime::Runtime;

use crate::agent::Agent;
use crate::app::App;
use crate::dns::SizeLimit;
use crate::filter::{CATALOG_SERVICE, CHECK, Filter, HEALTH, NODE, SERVICE};
use crate::{dns, go_compat, http as api, ids, text};

/// How many requests are read from one input.
const MAX_REQUESTS: usize = 64;

/// Sends lines of the form `METHOD TARGET BODY`, as in the cases of the differential test, to a new
/// agent one after the other. Requests that wait for a change are dropped.
pub fn requests(input: &[u8]) {
    in_runtime(|| {
        let app = Arc::new(Agent::builder().seed(1).into_app());
        for line in input.split(|&byte| byte == b'\n').take(MAX_REQUESTS) {
            send(&app, line);
        }
    });
}

/// Sends a DNS query over UDP and TCP to an agent with a few services.
pub fn dns(input: &[u8]) {
    thread_local! {
        static APP: OnceCell<Arc<App>> = const { OnceCell::new() };
    }
    let new_app = || {
        in_runtime(|| {
            let app = Arc::new(Agent::builder().seed(1).node_name("n1").into_app());
            for line in INSTANCES.lines() {
                send(&app, line.as_bytes());
            }
            app
        })
    };
    APP.with(|app| {
        let app = app.get_or_init(new_app);
        for limit in [SizeLimit::Datagram, SizeLimit::Stream] {
            dns::respond(app, input, limit);
        }
    });
}

/// Parses a filter expression for records of every shape, and applies it.
pub fn filter(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let record = serde_json::json!({
        "Service": {"Service": "web", "Tags": ["a", "b"], "Meta": {"k": "v"}, "Port": 80},
        "Node": {"Node": "n1", "Meta": null}, "Checks": [{"Status": "passing"}],
        "ServiceTags": [], "Tags": ["a"], "Meta": {"k": "v"}, "Port": 80, "Status": "passing",
    });
    for shape in [&NODE, &SERVICE, &CHECK, &HEALTH, &CATALOG_SERVICE] {
        if let Ok(filter) = Filter::parse(&text, shape) {
            filter.matches(&record);
        }
    }
}

/// Parses durations, numbers and ids, as they occur in queries and bodies.
pub fn numbers(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    if let Ok(nanoseconds) = go_compat::parse_duration(&text) {
        let shown = go_compat::show_duration(nanoseconds);
        assert_eq!(
            go_compat::parse_duration(&shown),
            Ok(nanoseconds),
            "{text} is {shown}"
        );
        go_compat::duration(nanoseconds);
    }
    let _ = go_compat::parse_u64(&text);
    let _ = go_compat::parse_bool(&text);
    let _ = ids::check_session_id(&text);
    let mut truncated = text.into_owned();
    text::truncate(&mut truncated, 7);
}

const INSTANCES: &str = r#"PUT /v1/agent/service/register {"Name":"web","Tags":["v1"],"Port":80}
PUT /v1/agent/service/register {"ID":"w2","Name":"web","Address":"fd00::6","Port":81}
PUT /v1/agent/service/register {"ID":"w3","Name":"web","Address":"db.example.com","Port":82}
PUT /v1/agent/service/register {"ID":"w4","Name":"Dotted.name_ü","Address":"10.0.0.1"}"#;

/// Handles a request up to the first point where it waits.
fn send(app: &Arc<App>, line: &[u8]) {
    let mut words = line.splitn(3, |&byte| byte == b' ');
    let mut next = || words.next().unwrap_or_default();
    let (method, target, body) = (next(), next(), next());
    let method = Method::from_bytes(method).unwrap_or(Method::GET);
    // Hyper itself rejects other targets.
    let Ok(uri) = Uri::try_from(target) else {
        return;
    };
    let mut request = Request::new(Full::new(Bytes::copy_from_slice(body)));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    let connection = api::ConnectionState::default();
    let response = pin!(api::handle(Arc::clone(app), request, &connection));
    let _ = response.poll(&mut Context::from_waker(Waker::noop()));
}

/// Calls `act` in a new runtime that is never driven, so that no check runs. The tasks that `act` spawns
/// are dropped with the runtime.
fn in_runtime<T>(act: impl FnOnce() -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let _entered = runtime.as_ref().map(Runtime::enter);
    act()
}

#[cfg(test)]
mod tests;
