//! What anybody can send, as functions of the bytes: nothing may panic, hang or grow out of hand.
//!
//! Not part of the API. The targets in the folder `fuzz` of the repository call these without end;
//! the tests below call them with mutated seeds for a few seconds.

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
use crate::{checks, dns, go_compat, http as api, ids};

/// So many requests are read out of one input.
const MOST_REQUESTS: usize = 64;

/// Lines as in the cases of the differential test, `METHOD TARGET BODY`, are sent to a fresh agent
/// one after the other. Those that would wait for a change wait in vain and are dropped.
pub fn requests(input: &[u8]) {
    in_runtime(|| {
        let app = Arc::new(Agent::builder().seed(1).into_app());
        for line in input.split(|&byte| byte == b'\n').take(MOST_REQUESTS) {
            send(&app, line);
        }
    });
}

/// A question that comes over UDP and TCP, to an agent that knows a few names.
pub fn dns(input: &[u8]) {
    thread_local! {
        static APP: OnceCell<Arc<App>> = const { OnceCell::new() };
    }
    in_runtime(|| {
        APP.with(|app| {
            let app = app.get_or_init(|| {
                let app = Arc::new(Agent::builder().seed(1).node_name("n1").into_app());
                for line in INSTANCES.lines() {
                    send(&app, line.as_bytes());
                }
                app
            });
            for limit in [SizeLimit::Datagram, SizeLimit::Stream] {
                dns::respond(app, input, limit);
            }
        });
    });
}

/// A filter expression, on records of every shape.
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

/// Durations and numbers, as queries and bodies have them.
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
    let mut cut = text.into_owned();
    checks::truncate(&mut cut, 7);
}

const INSTANCES: &str = r#"PUT /v1/agent/service/register {"Name":"web","Tags":["v1"],"Port":80}
PUT /v1/agent/service/register {"ID":"w2","Name":"web","Address":"fd00::6","Port":81}
PUT /v1/agent/service/register {"ID":"w3","Name":"web","Address":"db.example.com","Port":82}
PUT /v1/agent/service/register {"ID":"w4","Name":"Dotted.name_ü","Address":"10.0.0.1"}"#;

/// Sends one request as far as it gets without waiting.
fn send(app: &Arc<App>, line: &[u8]) {
    let mut words = line.splitn(3, |&byte| byte == b' ');
    let mut next = || words.next().unwrap_or_default();
    let (method, target, body) = (next(), next(), next());
    let method = Method::from_bytes(method).unwrap_or(Method::GET);
    // Hyper refuses other targets itself.
    let Ok(uri) = Uri::try_from(target) else {
        return;
    };
    let mut request = Request::new(Full::new(Bytes::copy_from_slice(body)));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    let answer = pin!(api::handle(Arc::clone(app), request));
    let _ = answer.poll(&mut Context::from_waker(Waker::noop()));
}

/// Whatever is spawned is never run: no check looks at anything.
fn in_runtime<T>(act: impl FnOnce() -> T) -> T {
    thread_local! {
        static RUNTIME: OnceCell<Option<Runtime>> = const { OnceCell::new() };
    }
    RUNTIME.with(|runtime| {
        let build = || {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder.enable_all().build().ok()
        };
        let _entered = runtime.get_or_init(build).as_ref().map(Runtime::enter);
        act()
    })
}

#[cfg(test)]
mod tests;
