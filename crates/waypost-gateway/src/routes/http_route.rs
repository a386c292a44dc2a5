//! Routes that come from `HTTPRoute` objects of Kubernetes.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use tokio::sync::Semaphore;
use waypost::ServiceName;

use super::pattern::{Conditions, HostPattern, PathPattern, Segment};
use super::redirect::Redirect;
use super::route::{
    Destination, Guard, Limits, MIRRORED_BODY, MIRRORED_IN_FLIGHT, MirrorTo, Route, Subset,
};
use super::source::RouteSource;
use super::target_rewrite::Rewrite;
use crate::header_edits::HeaderEdits;
use crate::policy::Policies;
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

impl HttpRouteSpec {
    /// The route of this match.
    pub(super) fn route(
        &self,
        defaults: &Limits,
        mut service: impl FnMut(&ServiceName) -> Arc<Service>,
    ) -> Route {
        let action = &*self.action;
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
        Route {
            name: self.name.as_str().into(),
            source: RouteSource::Object(Arc::clone(&self.source)),
            hosts: self.host.iter().cloned().collect(),
            except_hosts: self.except_hosts.clone(),
            path: self.path.clone(),
            conditions: self.conditions.clone(),
            total_weight: weights.fold(action.unresolved, u32::saturating_add),
            has_unresolved: action.unresolved > 0 || destinations.is_empty(),
            destinations,
            prefix: String::new(),
            prefix_value: None,
            rewrite: rewrite(action.path.as_ref(), &self.path),
            redirects_bare_prefix: false,
            redirect: action.redirect.clone().map(Box::new),
            host: action.host.clone(),
            limits,
            guard: Guard::default(),
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

#[cfg(test)]
mod tests {
    use http::Uri;

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
            let uri: Uri = path.parse().unwrap();
            let target = rewrite(Some(&change), &pattern).apply(&uri, "", &pattern);
            assert_eq!(target, expected, "{path} {prefix}");
        }
    }

    #[test]
    fn only_a_matched_prefix_can_be_replaced() {
        let uri: Uri = "/foo/bar?a=b".parse().unwrap();
        let prefix = PathPattern::prefix("/foo").unwrap();
        let exact = PathPattern::Exact("/foo/bar".into());
        let to_prefix = PathChange::Prefix("/xyz".into());
        let to_whole = PathChange::Whole("/x/y".into());
        for (change, pattern, expected) in [
            (None, &prefix, "/foo/bar?a=b"),
            (Some(&to_prefix), &exact, "/foo/bar?a=b"),
            (Some(&to_prefix), &prefix, "/xyz/bar?a=b"),
            (Some(&to_whole), &exact, "/x/y?a=b"),
            (Some(&to_whole), &prefix, "/x/y?a=b"),
        ] {
            let target = rewrite(change, pattern).apply(&uri, "", pattern);
            assert_eq!(target, expected, "{change:?}");
        }
    }
}
