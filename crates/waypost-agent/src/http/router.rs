//! From a path to the handler that answers it, by the rules of Go's `ServeMux`, whose redirects
//! and refusals clients see.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::OnceLock;

use http::{Method, StatusCode};

use super::call::Call;
use super::reply::{Refusal, Reply};
use crate::blocking::Read;

/// No route has more slashes than this.
const MOST_SLASHES: usize = 8;

/// A path and what can be done there. A path that ends in `/` stands for all below it too.
pub(crate) struct Route {
    pub path: &'static str,
    pub verbs: &'static [(Method, Handler)],
    /// Whether what is asked for would lie in a namespace, if there were any.
    pub namespaced: bool,
    /// The largest body, if that is less than others' may be.
    pub limit: Option<BodyLimit>,
}

/// How large a body may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BodyLimit {
    /// In bytes.
    pub size: usize,
    /// What Consul calls the setting.
    pub setting: &'static str,
}

/// Who answers.
pub(crate) enum Handler {
    /// At once.
    Plain(fn(&Call) -> Result<Reply, Refusal>),
    /// Later, and not by the rules of blocking queries.
    Later(fn(Call) -> Later),
    /// When the index has passed the client's.
    Blocking(Read),
    /// So too, and with `?cached` the answer says that it comes out of a cache. Ours is as fresh as
    /// any other.
    Cached(Read),
}

/// An answer to come.
pub(crate) type Later = Pin<Box<dyn Future<Output = Result<Reply, Refusal>> + Send>>;

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

impl Route {
    pub(crate) const fn new(path: &'static str, verbs: &'static [(Method, Handler)]) -> Self {
        Self {
            path,
            verbs,
            namespaced: true,
            limit: None,
        }
    }

    pub(crate) const fn up_to(self, size: usize, setting: &'static str) -> Self {
        Self {
            limit: Some(BodyLimit { size, setting }),
            ..self
        }
    }

    /// A route for which a namespace doesn't matter, so that naming one is no mistake.
    pub(crate) const fn beyond_namespaces(self) -> Self {
        Self {
            namespaced: false,
            ..self
        }
    }
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

/// The path without `//`, `.` and `..`, if it has any.
fn clean(path: &str) -> Option<String> {
    if !path.contains("//") && !path.contains("/.") && path.starts_with('/') {
        return None;
    }
    let mut kept = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            part => kept.push(part),
        }
    }
    let mut clean = format!("/{}", kept.join("/"));
    if path.ends_with('/') && clean != "/" {
        clean.push('/');
    }
    (clean != path).then_some(clean)
}

/// Percent-encodes what may not stand in a path.
fn escape(path: &str) -> String {
    let mut escaped = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// Decodes a path; nothing if it has a `%` without two hexadecimal digits.
pub(crate) fn unescape(path: &str) -> Option<String> {
    if !path.contains('%') {
        return Some(path.to_owned());
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let high = char::from(rest.next()?).to_digit(16)?;
            let low = char::from(rest.next()?).to_digit(16)?;
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_go_cleans_them() {
        for (path, expected) in [
            ("/v1/kv/a", None),
            ("/v1/kv/.hidden", None),
            ("//v1//kv/", Some("/v1/kv/")),
            ("/v1/../ui", Some("/ui")),
            ("/..", Some("/")),
        ] {
            assert_eq!(clean(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn no_route_is_beyond_reach() {
        let slashes = |path: &&str| path.matches('/').count();
        assert!(table().keys().all(|path| slashes(path) <= MOST_SLASHES));
    }

    #[test]
    fn a_broken_escape_is_no_path() {
        assert_eq!(unescape("/a%20b").as_deref(), Some("/a b"));
        assert_eq!(unescape("/a%2"), None);
        assert_eq!(unescape("/a%zz"), None);
    }
}
