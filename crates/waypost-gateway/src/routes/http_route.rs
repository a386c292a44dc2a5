//! Routes that come from `HTTPRoute` objects of Kubernetes.

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderValue, Response, StatusCode, Uri, header};
use tokio::sync::Semaphore;
use waypost::ServiceName;

use super::pattern::{Conditions, HostPattern, PathPattern, Segment, bare_host};
use super::route::{
    Destination, Limits, MIRRORED_BODY, MIRRORED_IN_FLIGHT, MirrorTo, Rewrite, Route, Subset,
};
use crate::header_edits::HeaderEdits;
use crate::policy::Policies;
use crate::response_body::ResponseBody;
use crate::service::Service;

/// One match of a rule for one host.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct HttpRouteSpec {
    /// Unique among all routes.
    pub(crate) name: String,
    /// The object, such as `HTTPRoute shop/orders`.
    pub(crate) source: Arc<str>,
    /// `None` for all hosts.
    pub(crate) host: Option<HostPattern>,
    /// Hosts of more specific listeners, whose requests don't belong to this route.
    pub(crate) except_hosts: Vec<HostPattern>,
    pub(crate) path: PathPattern,
    pub(crate) conditions: Conditions,
    pub(crate) action: Arc<RuleAction>,
}

/// What happens to the requests that a rule matches.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct RuleAction {
    /// The services and their weights.
    pub(crate) backends: Vec<(ServiceName, u32)>,
    /// The weight of references that can't be resolved. Their share of the requests fails.
    pub(crate) unresolved: u32,
    pub(crate) request_headers: HeaderEdits,
    pub(crate) response_headers: HeaderEdits,
    /// The time limit of a request.
    pub(crate) total: Option<Duration>,
    /// The time limit of an attempt, until its response begins.
    pub(crate) first_byte: Option<Duration>,
    /// The `Host` that the service gets.
    pub(crate) host: Option<HeaderValue>,
    pub(crate) path: Option<PathChange>,
    pub(crate) redirect: Option<Redirect>,
    /// The service that gets copies, and the share of the requests in millionths.
    pub(crate) mirror: Option<(ServiceName, u32)>,
}

/// How the path is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PathChange {
    Whole(String),
    /// The prefix that the rule matches is replaced.
    Prefix(String),
}

/// A redirect of all requests of a route. What is `None` stays as it is in the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Redirect {
    pub(crate) scheme: Option<&'static str>,
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    /// The port of the listener, for a redirect without scheme and port.
    pub(crate) listener_port: u16,
    pub(crate) status: StatusCode,
}

impl Redirect {
    /// The response. `scheme` and `host` are those that the client has used.
    pub(crate) fn response(
        &self,
        target: &PathAndQuery,
        scheme: &str,
        host: Option<&HeaderValue>,
    ) -> Response<ResponseBody> {
        let mut response = Response::new(ResponseBody::empty());
        *response.status_mut() = self.status;
        let requested = host.and_then(|host| host.to_str().ok()).map(bare_host);
        let location = match self.host.as_deref().or(requested.as_deref()) {
            Some(host) => self.location(target, scheme, host),
            None => target.to_string(),
        };
        if let Ok(location) = HeaderValue::try_from(location) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        response
    }

    fn location(&self, target: &PathAndQuery, requested: &str, host: &str) -> String {
        let scheme = self.scheme.unwrap_or(requested);
        let port = match (self.port, self.scheme, requested) {
            (Some(port), ..) => Some(port),
            // A proxy that terminates TLS in front of the gateway has another port than the listener.
            (None, None, "http") => Some(self.listener_port),
            _ => None,
        };
        let default = if scheme == "https" { 443 } else { 80 };
        match port.filter(|port| *port != default) {
            Some(port) => format!("{scheme}://{host}:{port}{target}"),
            None => format!("{scheme}://{host}{target}"),
        }
    }
}

impl Route {
    /// The route of one match of a rule.
    pub(super) fn from_http_route(
        spec: &HttpRouteSpec,
        defaults: &Limits,
        mut service: impl FnMut(&ServiceName) -> Arc<Service>,
    ) -> Self {
        let action = &*spec.action;
        let mut destination = |name: &ServiceName, weight| Destination {
            service: service(name),
            subset: Subset::default(),
            weight,
        };
        let backends = action.backends.iter();
        let destinations: Vec<_> = backends
            .map(|(name, weight)| destination(name, *weight))
            .collect();
        let limits = Limits {
            total: action.total,
            first_byte: action.first_byte.unwrap_or(defaults.first_byte),
            ..defaults.clone()
        };
        let mirror = action.mirror.as_ref().map(|(name, share)| {
            Arc::new(MirrorTo {
                destination: destination(name, 1),
                share: *share,
                max_body: usize::try_from(MIRRORED_BODY).unwrap_or(usize::MAX),
                permits: Arc::new(Semaphore::new(MIRRORED_IN_FLIGHT)),
                timeout: limits.first_byte,
            })
        });
        let weights = destinations.iter().map(|destination| destination.weight);
        Self {
            name: spec.name.as_str().into(),
            source: Some(Arc::clone(&spec.source)),
            hosts: spec.host.iter().cloned().collect(),
            except_hosts: spec.except_hosts.clone(),
            path: spec.path.clone(),
            conditions: spec.conditions.clone(),
            total_weight: weights.fold(action.unresolved, u32::saturating_add),
            has_unresolved: action.unresolved > 0 || destinations.is_empty(),
            destinations,
            prefix: String::new(),
            prefix_value: None,
            rewrite: rewrite(action.path.as_ref(), &spec.path),
            redirects_bare_prefix: false,
            redirect: action.redirect.clone().map(Box::new),
            host: action.host.clone(),
            limits,
            policies: Policies {
                request_headers: action.request_headers.clone(),
                response_headers: action.response_headers.clone(),
                ..Policies::default()
            },
            mirror,
        }
    }
}

fn rewrite(change: Option<&PathChange>, pattern: &PathPattern) -> Rewrite {
    match (change, pattern) {
        (None, _) => Rewrite::Keep,
        (Some(PathChange::Whole(path)), _) => {
            let path = path.strip_prefix('/').unwrap_or(path);
            let segments = path.split('/').map(|text| Segment::Literal(text.into()));
            Rewrite::Whole(segments.collect())
        }
        (Some(PathChange::Prefix(to)), PathPattern::Prefix(from)) => Rewrite::MatchedPrefix {
            from: from.clone(),
            to: to.trim_end_matches('/').to_owned(),
        },
        (Some(PathChange::Prefix(_)), _) => Rewrite::Keep,
    }
}

/// The path of a request with the prefix replaced, as in the table of the Gateway API's
/// `HTTPPathModifier`.
pub(super) fn with_prefix(uri: &Uri, from: &str, to: &str) -> String {
    let rest = uri.path().strip_prefix(from).unwrap_or(uri.path());
    let path = format!("{to}{rest}");
    let path = if path.is_empty() { "/" } else { &path };
    match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_replaced_as_in_the_specification() {
        for (path, prefix, to, expected) in [
            ("/foo/bar", "/foo", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo", "/xyz/", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz", "/xyz/bar"),
            ("/foo/bar", "/foo/", "/xyz/", "/xyz/bar"),
            ("/foo", "/foo", "/xyz", "/xyz"),
            ("/foo/", "/foo", "/xyz", "/xyz/"),
            ("/foo/bar", "/foo", "", "/bar"),
            ("/foo/", "/foo", "", "/"),
            ("/foo", "/foo", "", "/"),
            ("/foo/", "/foo", "/", "/"),
            ("/foo", "/foo", "/", "/"),
            ("/foo?a=b", "/foo", "/xyz", "/xyz?a=b"),
        ] {
            let pattern = PathPattern::prefix(prefix).unwrap();
            let change = PathChange::Prefix(to.into());
            let Rewrite::MatchedPrefix { from, to } = rewrite(Some(&change), &pattern) else {
                panic!("a prefix")
            };
            let uri: Uri = path.parse().unwrap();
            assert_eq!(with_prefix(&uri, &from, &to), expected, "{path} {prefix}");
        }
    }

    #[test]
    fn a_redirect_has_a_port_only_if_it_is_not_the_schemes() {
        let redirect = |scheme, port, listener_port| Redirect {
            scheme,
            host: None,
            port,
            listener_port,
            status: StatusCode::FOUND,
        };
        let host = HeaderValue::from_static("Shop.example:8000");
        for (redirect, scheme, expected) in [
            (redirect(None, None, 80), "http", "http://shop.example/a?b"),
            (
                redirect(None, None, 8080),
                "http",
                "http://shop.example:8080/a?b",
            ),
            (
                redirect(None, None, 80),
                "https",
                "https://shop.example/a?b",
            ),
            (
                redirect(Some("https"), None, 80),
                "http",
                "https://shop.example/a?b",
            ),
            (
                redirect(Some("https"), Some(8443), 80),
                "http",
                "https://shop.example:8443/a?b",
            ),
            (
                redirect(Some("https"), Some(443), 80),
                "http",
                "https://shop.example/a?b",
            ),
        ] {
            let target = PathAndQuery::from_static("/a?b");
            let response = redirect.response(&target, scheme, Some(&host));
            assert_eq!(response.headers()[header::LOCATION], expected);
        }
    }
}
