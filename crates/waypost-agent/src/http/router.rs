//! From a path to the handler that answers it, by the rules of Go's `ServeMux`, whose redirects
//! and refusals clients see.

use std::collections::HashMap;
use std::sync::OnceLock;

use http::{Method, StatusCode};

use super::path::{clean, escape};
use super::reply::{Refusal, Reply};
use super::route::{Handler, Route};

/// No route has more slashes than this.
const MOST_SLASHES: usize = 8;

/// Where a request goes.
pub(crate) enum Destination {
    /// To a handler.
    Handler {
        handler: &'static Handler,
        route: &'static Route,
    },
    /// To nobody: this is the answer. It varies with the encoding if a route knew the path.
    Answer { reply: Reply, known: bool },
}

/// Finds the handler for a decoded path.
pub(crate) fn route(method: &Method, path: &str, query: &str) -> Destination {
    let unknown = |reply| Destination::Answer {
        reply,
        known: false,
    };
    if let Some(clean) = clean(path) {
        return unknown(redirect(method, &clean, query));
    }
    let Some(route) = find(path) else {
        let below = format!("{path}/");
        return unknown(if table().contains_key(below.as_str()) {
            redirect(method, &below, query)
        } else if path == "/" {
            redirect(method, "/ui/", "")
        } else {
            Reply::empty().status(StatusCode::NOT_FOUND)
        });
    };
    match route.verbs.iter().find(|(verb, _)| verb == method) {
        Some((_, handler)) => Destination::Handler { handler, route },
        None => Destination::Answer {
            reply: other_verb(route, method),
            known: true,
        },
    }
}

fn table() -> &'static HashMap<&'static str, &'static Route> {
    static TABLE: OnceLock<HashMap<&str, &Route>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let routes = super::ROOMS.iter().copied().flatten();
        routes.map(|route| (route.path, route)).collect()
    })
}

/// The route of exactly this path, or of the longest path above it that ends in `/`.
fn find(path: &str) -> Option<&'static Route> {
    let table = table();
    if let Some(route) = table.get(path) {
        return Some(route);
    }
    let slashes = path.bytes().enumerate().filter(|(_, byte)| *byte == b'/');
    // A key may have thousands of slashes, a route has few.
    let above = slashes.take(MOST_SLASHES).map(|(at, _)| &path[..=at]);
    above.filter_map(|above| table.get(above).copied()).last()
}

fn other_verb(route: &Route, method: &Method) -> Reply {
    let verbs = route.verbs.iter().map(|(verb, _)| verb.as_str());
    let allow = std::iter::once("OPTIONS").chain(verbs).collect::<Vec<_>>();
    let reply = if method == Method::OPTIONS {
        Reply::empty()
    } else {
        let text = format!("method {method} not allowed");
        Refusal::new(StatusCode::METHOD_NOT_ALLOWED, text).into()
    };
    reply.header("allow", allow.join(","))
}

fn redirect(method: &Method, path: &str, query: &str) -> Reply {
    let mut to = escape(path);
    if !query.is_empty() {
        to.push('?');
        to.push_str(query);
    }
    let reply = if *method == Method::GET || *method == Method::HEAD {
        let shown = to.replace('&', "&amp;").replace('"', "&#34;");
        let body = format!("<a href=\"{shown}\">Moved Permanently</a>.\n\n");
        Reply::typed("text/html; charset=utf-8", body)
    } else {
        Reply::empty()
    };
    reply
        .status(StatusCode::MOVED_PERMANENTLY)
        .header("location", to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_route_is_beyond_reach() {
        let slashes = |path: &&str| path.matches('/').count();
        assert!(table().keys().all(|path| slashes(path) <= MOST_SLASHES));
    }
}
