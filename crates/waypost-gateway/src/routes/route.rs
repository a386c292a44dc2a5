//! A route: the requests it matches, its destinations, limits and policies.

use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use waypost::{Instance, ServiceName};

use super::auth_spec::{Access, AuthSpec};
use super::file::{
    CompressSpec, CorsSpec, DestinationSpec, LimitsSpec, MirrorSpec, RateBy, RateLimitSpec,
    RouteSpec,
};
use super::pattern::{Conditions, HostPattern, PathPattern};
use super::redirect::Redirect;
use super::source::RouteSource;
use super::tagged::TaggedRoute;
use super::target_rewrite::Rewrite;
use crate::config::Config;
use crate::policy::{
    COMPRESSED_TYPES, CompressionRules, Concurrency, Cors, Policies, RateKey, RateLimit, Sticky,
};
use crate::service::Service;

/// How long browsers cache the response to a preflight, by default.
const CORS_MAX_AGE: Duration = Duration::from_secs(600);
/// The number of copies in progress, and the largest body that is copied, by default.
pub(super) const MIRRORED_IN_FLIGHT: usize = 100;
pub(super) const MIRRORED_BODY: u64 = 64 * 1024;
/// The smallest response that is compressed, by default.
const MIN_COMPRESSED: u64 = 1024;
/// The level of compression, by default.
const COMPRESSION_LEVEL: u32 = 5;
/// How long a request waits for others to end, by default.
const MAX_WAIT: Duration = Duration::from_secs(5);

/// A route to a service, or to several.
#[derive(Debug)]
pub(crate) struct Route {
    pub(super) name: Arc<str>,
    pub(super) source: RouteSource,
    /// The hosts; empty for all.
    pub(super) hosts: Vec<HostPattern>,
    /// Hosts that it doesn't match, even if `hosts` does.
    pub(super) except_hosts: Vec<HostPattern>,
    pub(super) path: PathPattern,
    pub(super) conditions: Conditions,
    pub(super) destinations: Vec<Destination>,
    /// The sum of the weights of the destinations, and of those that can't be resolved.
    pub(super) total_weight: u32,
    /// Whether a share of the requests has no destination.
    pub(super) has_unresolved: bool,
    /// The beginning of the path that the service doesn't see, such as `/auth`; empty if it sees the
    /// whole path.
    pub(super) prefix: String,
    pub(super) prefix_value: Option<HeaderValue>,
    pub(super) rewrite: Rewrite,
    /// Whether a GET of the bare prefix is redirected to the prefix with a slash.
    pub(crate) redirects_bare_prefix: bool,
    /// The response to all requests.
    pub(crate) redirect: Option<Box<Redirect>>,
    /// The `Host` that the service gets instead of the client's.
    pub(super) host: Option<HeaderValue>,
    pub(crate) limits: Limits,
    pub(super) guard: Guard,
    pub(crate) policies: Policies,
    pub(crate) mirror: Option<Arc<MirrorTo>>,
}

/// The policies of a route that can refuse requests, as configured: authentication, authorisation and rate
/// limit. The default refuses none.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Guard {
    auth: AuthSpec,
    rate_limit: Option<RateLimitSpec>,
}

/// A service, or a subset of its instances.
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) service: Arc<Service>,
    pub(crate) subset: Subset,
    pub(super) weight: u32,
}

/// Where copies of a route's requests are sent.
#[derive(Debug)]
pub(crate) struct MirrorTo {
    pub(crate) destination: Destination,
    /// The share of the requests that are copied, in millionths.
    pub(super) share: u32,
    /// The largest request body that is copied, in bytes.
    pub(crate) max_body: usize,
    /// How many copies may be in progress at a time. Further requests aren't copied.
    pub(super) permits: Arc<Semaphore>,
    /// The time limit from the end of the request's body to the end of the response.
    pub(crate) timeout: Duration,
}

impl MirrorTo {
    /// Whether to copy a request: `None` if it isn't chosen, or too many copies are in progress.
    pub(crate) fn choose(&self) -> Option<OwnedSemaphorePermit> {
        if fastrand::u32(..1_000_000) >= self.share {
            return None;
        }
        Arc::clone(&self.permits).try_acquire_owned().ok()
    }
}

/// Some instances of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Subset {
    version: Option<String>,
    tag: Option<String>,
}

/// The limits of a route's requests.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Limits {
    /// How long connecting to an instance may take.
    pub(crate) connect: Duration,
    /// How long an instance may take to begin its response.
    pub(crate) first_byte: Duration,
    /// How long an instance may send nothing in the middle of its response.
    pub(crate) idle: Duration,
    /// How long a client may send nothing in the middle of its body.
    pub(crate) upload_idle: Duration,
    /// How long a request may take in all.
    pub(crate) total: Option<Duration>,
    /// The attempts per request, the first included.
    pub(crate) max_attempts: u32,
    /// The largest body that is buffered for a retry, in bytes.
    pub(crate) replay: usize,
    /// The largest request body, in bytes.
    pub(crate) body: u64,
}

impl Limits {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            connect: config.connect_timeout,
            first_byte: config.first_byte_timeout,
            idle: config.idle_timeout,
            upload_idle: config.upload_idle_timeout,
            total: None,
            max_attempts: config.max_attempts,
            replay: config.bounded_replay_limit(),
            body: config.max_body.unwrap_or(u64::MAX),
        }
    }

    /// The limits of a route of the file. Those that it doesn't set are as in `self`.
    fn with(&self, spec: &RouteSpec) -> Self {
        let (timeouts, retries) = (&spec.timeouts, &spec.retries);
        let replay = retries.replay_limit.map(|bytes| {
            let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
            Config::bound_replay_limit(bytes)
        });
        Self {
            connect: timeouts.connect.unwrap_or(self.connect),
            first_byte: timeouts.first_byte.unwrap_or(self.first_byte),
            idle: timeouts.idle.unwrap_or(self.idle),
            upload_idle: timeouts.upload_idle.unwrap_or(self.upload_idle),
            total: timeouts.total.or(self.total),
            max_attempts: retries.attempts.unwrap_or(self.max_attempts),
            replay: replay.unwrap_or(self.replay),
            body: spec.max_body.unwrap_or(self.body),
        }
    }
}

impl Subset {
    /// Whether it is all instances.
    pub(crate) fn is_all(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn contains(&self, instance: &Instance) -> bool {
        let has_version = self
            .version
            .as_deref()
            .is_none_or(|version| instance.version() == Some(version));
        has_version && self.tag.as_deref().is_none_or(|tag| instance.has_tag(tag))
    }

    /// A description for error messages.
    pub(crate) fn describe(&self) -> String {
        let version = self
            .version
            .as_ref()
            .map(|version| format!("version {version:?}"));
        let tag = self.tag.as_ref().map(|tag| format!("tag {tag:?}"));
        let parts: Vec<_> = [version, tag].into_iter().flatten().collect();
        parts.join(" and ")
    }
}

impl Route {
    /// The route of a discovered service: `/{service}/…`.
    pub(crate) fn discovered(service: Arc<Service>, limits: Limits) -> Self {
        let prefix = format!("/{}", service.name().as_str());
        let destination = Destination {
            subset: Subset::default(),
            weight: 1,
            service,
        };
        Self {
            name: destination.service.name().as_str().into(),
            source: RouteSource::Discovery,
            hosts: Vec::new(),
            except_hosts: Vec::new(),
            path: PathPattern::Prefix(prefix.clone()),
            conditions: Conditions::default(),
            destinations: vec![destination],
            total_weight: 1,
            has_unresolved: false,
            redirect: None,
            host: None,
            prefix_value: HeaderValue::from_str(&prefix).ok(),
            prefix,
            rewrite: Rewrite::Prefix(String::new()),
            redirects_bare_prefix: true,
            limits,
            guard: Guard::default(),
            policies: Policies::default(),
            mirror: None,
        }
    }

    /// The route number `index` of the routes file with this name.
    pub(crate) fn from_file(
        spec: RouteSpec,
        index: usize,
        file: &Arc<str>,
        defaults: &Limits,
        access: Access,
        mut service: impl FnMut(&ServiceName) -> Arc<Service>,
    ) -> Self {
        let limits = defaults.with(&spec);
        let destinations: Vec<_> = spec
            .destinations
            .into_iter()
            .map(|part: DestinationSpec| Destination {
                service: service(&part.service),
                subset: Subset {
                    version: part.version,
                    tag: part.tag,
                },
                weight: part.weight,
            })
            .collect();
        let mirror = spec.mirror.map(|mirror| {
            let service = service(&mirror.service);
            Arc::new(mirror_to(mirror, service, limits.first_byte))
        });
        let (prefix, rewrite) = match (&spec.path, spec.rewrite) {
            (_, None) => (String::new(), Rewrite::Keep),
            (PathPattern::Prefix(prefix), Some(to)) => (prefix.clone(), Rewrite::Prefix(to)),
            (_, Some(to)) => (String::new(), Rewrite::whole(&to)),
        };
        let guard = Guard {
            auth: spec.auth,
            rate_limit: spec.rate_limit.clone(),
        };
        let policies = Policies {
            authentication: access.authentication,
            external_auth: access.external,
            rate_limit: spec.rate_limit.map(rate_limit),
            concurrency: spec.limits.map(concurrency),
            cors: spec.cors.map(cors),
            compression: spec.compress.map(compression),
            request_headers: spec.request_headers,
            response_headers: spec.response_headers,
            sticky: spec.sticky.map(|sticky| Sticky {
                cookie: sticky.cookie,
                secure: sticky.secure,
            }),
        };
        Self {
            name: spec
                .name
                .unwrap_or_else(|| format!("routes[{index}]"))
                .into(),
            source: RouteSource::File(Arc::clone(file), spec.position.0),
            hosts: spec.hosts,
            except_hosts: Vec::new(),
            path: spec.path,
            conditions: spec.conditions,
            total_weight: destinations
                .iter()
                .fold(0, |sum, part| sum.saturating_add(part.weight)),
            has_unresolved: false,
            redirect: None,
            host: None,
            destinations,
            prefix_value: Some(prefix.as_str())
                .filter(|prefix| !prefix.is_empty())
                .and_then(|prefix| HeaderValue::from_str(prefix).ok()),
            prefix,
            rewrite,
            redirects_bare_prefix: false,
            limits,
            guard,
            policies,
            mirror,
        }
    }

    /// The route that the tags of a service's instances define.
    pub(super) fn tagged(service: Arc<Service>, tagged: TaggedRoute, limits: Limits) -> Self {
        let mut route = Self::discovered(service, limits);
        let strips = tagged.strips && !tagged.path.is_everything();
        let (prefix, rewrite) = match &tagged.path {
            PathPattern::Prefix(prefix) if strips => {
                (prefix.clone(), Rewrite::Prefix(String::new()))
            }
            _ => (String::new(), Rewrite::Keep),
        };
        route.source = RouteSource::Tags;
        route.prefix_value = HeaderValue::from_str(&prefix).ok().filter(|_| strips);
        route.prefix = prefix;
        route.rewrite = rewrite;
        route.hosts = tagged.hosts;
        route.path = tagged.path;
        route.redirects_bare_prefix = false;
        route
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The paths that it matches, for display.
    pub(crate) fn path(&self) -> &PathPattern {
        &self.path
    }

    /// The destinations of its requests. Only the route of an HTTPRoute may have none.
    pub(crate) fn destinations(&self) -> &[Destination] {
        &self.destinations
    }

    /// Where it is defined.
    pub(crate) fn source(&self) -> &RouteSource {
        &self.source
    }

    /// The hosts that it matches, for display; empty for all.
    pub(crate) fn hosts(&self) -> &[HostPattern] {
        &self.hosts
    }

    /// The `Host` that the service gets instead of the client's.
    pub(crate) fn host(&self) -> Option<&HeaderValue> {
        self.host.as_ref()
    }

    /// Chooses a destination by weight. `None` for the share of the requests that has none.
    pub(crate) fn choose(&self) -> Option<&Destination> {
        if let [only] = self.destinations.as_slice()
            && !self.has_unresolved
        {
            return Some(only);
        }
        let mut rest = fastrand::u32(..self.total_weight.max(1));
        for destination in &self.destinations {
            if rest < destination.weight {
                return Some(destination);
            }
            rest -= destination.weight;
        }
        None
    }

    /// The beginning of the path that the service doesn't see; empty if it sees the whole path.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The prefix as the value of `X-Forwarded-Prefix`.
    pub(crate) fn prefix_value(&self) -> Option<&HeaderValue> {
        self.prefix_value.as_ref()
    }

    /// The path that the service sees instead of the prefix.
    pub(crate) fn replacement(&self) -> &str {
        self.rewrite.replacement()
    }

    pub(crate) fn matches(
        &self,
        host: Option<&str>,
        path: &str,
        query: Option<&str>,
        method: &Method,
        headers: &HeaderMap,
    ) -> bool {
        self.path.matches(path) && self.matches_beside_path(host, query, method, headers)
    }

    /// Whether everything but the path matches.
    pub(super) fn matches_beside_path(
        &self,
        host: Option<&str>,
        query: Option<&str>,
        method: &Method,
        headers: &HeaderMap,
    ) -> bool {
        let is_host = self.hosts.is_empty()
            || host.is_some_and(|host| self.hosts.iter().any(|pattern| pattern.matches(host)));
        is_host
            && self.conditions.hold(method, headers, query)
            && !host.is_some_and(|host| self.except_hosts.iter().any(|it| it.matches(host)))
    }

    /// Whether a service could get requests through both routes.
    pub(super) fn shares_service(&self, other: &Self) -> bool {
        self.destinations.iter().any(|one| {
            let mut others = other.destinations.iter();
            others.any(|two| one.service.name() == two.service.name())
        })
    }

    /// Whether it takes precedence over the routes of discovered services. A route for all paths doesn't,
    /// unless it is for a host or from an HTTPRoute.
    pub(crate) fn precedes_discovered(&self) -> bool {
        let is_object = matches!(self.source, RouteSource::Object(_));
        is_object || !self.hosts.is_empty() || !self.path.is_everything()
    }

    /// If two routes match a request, the one with the greater value is used.
    pub(crate) fn rank(&self) -> impl Ord + use<> {
        let host = self.hosts.iter().map(HostPattern::rank).max();
        (host, self.path.rank(), self.conditions.rank())
    }

    /// The target of a request as the service sees it.
    pub(crate) fn rewritten(&self, uri: &Uri) -> PathAndQuery {
        self.rewrite.apply(uri, &self.prefix, &self.path)
    }
}

fn rate_limit(spec: RateLimitSpec) -> RateLimit {
    let key = match (spec.by, spec.header) {
        (RateBy::All, _) => RateKey::All,
        (RateBy::Key, _) => RateKey::ApiKey,
        (RateBy::Header, Some(header)) => RateKey::Header(header.0),
        _ => RateKey::Client,
    };
    let per = spec.per.unwrap_or(Duration::from_secs(1));
    let burst = spec.burst.unwrap_or(spec.requests);
    RateLimit::new(spec.requests, per, burst, key)
}

fn concurrency(spec: LimitsSpec) -> Concurrency {
    let wait = spec.max_wait.unwrap_or(MAX_WAIT);
    Concurrency::new(spec.concurrent, spec.pending, wait)
}

fn mirror_to(spec: MirrorSpec, service: Arc<Service>, timeout: Duration) -> MirrorTo {
    let in_flight = spec.max_in_flight.unwrap_or(MIRRORED_IN_FLIGHT);
    let max_body = spec.max_body.unwrap_or(MIRRORED_BODY);
    MirrorTo {
        destination: Destination {
            service,
            subset: Subset {
                version: spec.version,
                tag: spec.tag,
            },
            weight: 1,
        },
        share: (spec.percent.unwrap_or(100.0) * 10_000.0).round() as u32,
        max_body: usize::try_from(max_body).unwrap_or(usize::MAX),
        permits: Arc::new(Semaphore::new(in_flight.min(Semaphore::MAX_PERMITS))),
        timeout: spec.timeout.unwrap_or(timeout),
    }
}

fn compression(spec: CompressSpec) -> CompressionRules {
    let types = spec.types.unwrap_or_else(|| {
        let types = COMPRESSED_TYPES.iter();
        types.map(|kind| (*kind).to_owned()).collect()
    });
    CompressionRules {
        min_size: spec.min_size.unwrap_or(MIN_COMPRESSED),
        types,
        level: spec.level.unwrap_or(COMPRESSION_LEVEL),
    }
}

fn cors(spec: CorsSpec) -> Cors {
    let list = |names: Vec<String>| {
        Some(names.join(", "))
            .filter(|names| !names.is_empty())
            .and_then(|names| HeaderValue::try_from(names).ok())
    };
    let names = |names: Vec<super::values::Checked<HeaderName>>| {
        names.into_iter().map(|name| name.0.to_string()).collect()
    };
    let methods = spec.methods.into_iter().map(|method| method.0.to_string());
    Cors {
        origins: Some(spec.origins)
            .filter(|origins| !origins.is_empty() && !origins.iter().any(|origin| origin == "*")),
        methods: list(methods.collect()),
        headers: list(names(spec.headers)),
        expose: list(names(spec.expose)),
        credentials: spec.credentials,
        max_age: spec.max_age.unwrap_or(CORS_MAX_AGE),
    }
}

#[cfg(test)]
mod tests {
    use waypost::parse_yaml;

    use super::*;

    #[tokio::test]
    async fn clients_share_a_rate_limit_or_have_one_each() {
        let headers = HeaderMap::new();
        let clients = ["192.0.2.1", "192.0.2.2"].map(|client| client.parse().unwrap());
        for (by, shares) in [("", false), ("by: client", false), ("by: all", true)] {
            let text = format!("requests: 1\nper: 1h\n{by}");
            let spec = parse_yaml("limit.yaml", &text).unwrap();
            let limit = rate_limit(spec);
            assert!(limit.check(&headers, clients[0], None).is_ok(), "{by}");
            assert!(limit.check(&headers, clients[0], None).is_err(), "{by}");
            let is_refused = limit.check(&headers, clients[1], None).is_err();
            assert_eq!(is_refused, shares, "{by}");
        }
    }

    #[test]
    fn every_origin_is_allowed_if_none_is_named_or_one_is_a_star() {
        for (origins, allows) in [
            ("", true),
            ("origins: [\"*\"]", true),
            ("origins: [\"*\", \"https://b\"]", true),
            ("origins: [\"https://b\"]", false),
            ("origins: [\"https://b\", \"https://a\"]", true),
        ] {
            let spec = serde_saphyr::from_str(&format!("max_age: 5s\n{origins}")).unwrap();
            let cors = cors(spec);
            let mut headers = HeaderMap::new();
            cors.allow("https://a", &mut headers);
            let is_allowed = headers.contains_key("access-control-allow-origin");
            assert_eq!(is_allowed, allows, "{origins}");
        }
    }
}
