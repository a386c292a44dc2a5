//! Finds the handler of a path by the rules of Go's `ServeMux`. Its redirects and error responses
//! are part of what Consul's clients see.

use std::collections::HashMap;
use std::sync::OnceLock;

use http::{Method, StatusCode};

use super::path::{clean, escape};
use super::response::{ApiError, ApiResponse};
use super::route::{Handler, Route};
use super::{
    acl, agent, catalog, coordinate, event, health, internal, kv, operator, session, status, txn,
    ui, unsupported, waypost,
};

/// The routes of every area of the API.
const ROUTES: &[&[Route]] = &[
    acl::ROUTES,
    agent::ROUTES,
    agent::check::ROUTES,
    agent::health::ROUTES,
    agent::metrics::ROUTES,
    agent::service::ROUTES,
    catalog::ROUTES,
    coordinate::ROUTES,
    event::ROUTES,
    health::ROUTES,
    internal::ROUTES,
    kv::ROUTES,
    operator::ROUTES,
    session::ROUTES,
    status::ROUTES,
    txn::ROUTES,
    ui::ROUTES,
    unsupported::ROUTES,
    waypost::checks::ROUTES,
    waypost::events::ROUTES,
];

/// The largest number of slashes in the path of a route.
const MAX_SLASHES: usize = 8;

/// The result of looking up a path and method.
pub(crate) enum RouteMatch {
    Handler {
        handler: &'static Handler,
        route: &'static Route,
    },
    /// No handler: this is the response. `path_exists` is whether the path has a route, which
    /// decides whether the response varies by encoding.
    Response {
        response: ApiResponse,
        path_exists: bool,
    },
}

/// Finds the handler of a percent-decoded path.
pub(crate) fn route(method: &Method, path: &str, query: &str) -> RouteMatch {
    let not_found = |response| RouteMatch::Response {
        response,
        path_exists: false,
    };
    if let Some(clean) = clean(path) {
        return not_found(redirect(method, &clean, query));
    }
    let Some(route) = find(path) else {
        let with_slash = format!("{path}/");
        return not_found(if table().contains_key(with_slash.as_str()) {
            redirect(method, &with_slash, query)
        } else if path == "/" {
            redirect(method, "/ui/", "")
        } else {
            ApiResponse::empty().status(StatusCode::NOT_FOUND)
        });
    };
    match route.methods.iter().find(|(known, _)| known == method) {
        Some((_, handler)) => RouteMatch::Handler { handler, route },
        None => RouteMatch::Response {
            response: method_not_allowed(route, method),
            path_exists: true,
        },
    }
}

fn table() -> &'static HashMap<&'static str, &'static Route> {
    static TABLE: OnceLock<HashMap<&str, &Route>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let routes = ROUTES.iter().copied().flatten();
        routes.map(|route| (route.path, route)).collect()
    })
}

/// The route with exactly this path, or else the one with the longest prefix that ends in `/`.
fn find(path: &str) -> Option<&'static Route> {
    let table = table();
    if let Some(route) = table.get(path) {
        return Some(route);
    }
    let slashes = path.bytes().enumerate().filter(|(_, byte)| *byte == b'/');
    // A key can contain thousands of slashes, but no route does.
    let prefixes = slashes.take(MAX_SLASHES).map(|(at, _)| &path[..=at]);
    prefixes
        .filter_map(|prefix| table.get(prefix).copied())
        .last()
}

fn method_not_allowed(route: &Route, method: &Method) -> ApiResponse {
    let methods = route.methods.iter().map(|(known, _)| known.as_str());
    let allow = std::iter::once("OPTIONS")
        .chain(methods)
        .collect::<Vec<_>>();
    let response = if method == Method::OPTIONS {
        ApiResponse::empty()
    } else {
        let text = format!("method {method} not allowed");
        ApiError::new(StatusCode::METHOD_NOT_ALLOWED, text).into()
    };
    response.header("allow", allow.join(","))
}

fn redirect(method: &Method, path: &str, query: &str) -> ApiResponse {
    let mut location = escape(path);
    if !query.is_empty() {
        location.push('?');
        location.push_str(query);
    }
    let response = if *method == Method::GET || *method == Method::HEAD {
        let link = location.replace('&', "&amp;").replace('"', "&#34;");
        let body = format!("<a href=\"{link}\">Moved Permanently</a>.\n\n");
        ApiResponse::typed("text/html; charset=utf-8", body)
    } else {
        ApiResponse::empty()
    };
    response
        .status(StatusCode::MOVED_PERMANENTLY)
        .header("location", location)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_route_has_more_slashes_than_are_searched() {
        let slashes = |path: &&str| path.matches('/').count();
        assert!(table().keys().all(|path| slashes(path) <= MAX_SLASHES));
    }
}
