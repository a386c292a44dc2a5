//! The routes file: YAML, or TOML if its name ends in `.toml`. Errors have line and column.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use serde::Deserialize;
use waypost::{ConfigError, ServiceName};

use super::auth_spec::{ApiKeysSpec, AuthSpec, ExternalAuthSpec, JwtSpec};
use super::document::{Document, Problem, ReadError, keys, located};
use super::pattern::{Conditions, HostPattern, PathPattern, Segment};
use super::values::{Check, Checked, duration, size};
use crate::header_edits::HeaderEdits;
use crate::pages::is_probe;
use crate::similar::closest;

/// A routes file.
#[derive(Debug, Default)]
pub(crate) struct RoutesFile {
    /// The routes. Their order decides between routes that are equally specific.
    pub(crate) routes: Vec<RouteSpec>,
}

/// One validated route of the file.
#[derive(Debug)]
pub(crate) struct RouteSpec {
    /// Line and column in the file.
    pub(crate) position: (u64, u64),
    pub(crate) name: Option<String>,
    pub(crate) hosts: Vec<HostPattern>,
    pub(crate) path: PathPattern,
    pub(crate) conditions: Conditions,
    /// The destinations with their weights.
    pub(crate) destinations: Vec<DestinationSpec>,
    /// The replacement of the matched prefix or of the whole path. `None` leaves the path as it is.
    pub(crate) rewrite: Option<String>,
    pub(crate) request_headers: HeaderEdits,
    pub(crate) response_headers: HeaderEdits,
    pub(crate) timeouts: Timeouts,
    pub(crate) retries: Retries,
    pub(crate) limits: Option<LimitsSpec>,
    pub(crate) rate_limit: Option<RateLimitSpec>,
    pub(crate) cors: Option<CorsSpec>,
    pub(crate) compress: Option<CompressSpec>,
    pub(crate) max_body: Option<u64>,
    pub(crate) sticky: Option<StickySpec>,
    pub(crate) auth: AuthSpec,
    pub(crate) mirror: Option<MirrorSpec>,
}

/// A route as written in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields {
    name: Option<String>,
    #[serde(default, rename = "match")]
    matches: MatchSpec,
    service: Option<ServiceName>,
    version: Option<String>,
    tag: Option<String>,
    #[serde(default)]
    split: Vec<DestinationSpec>,
    #[serde(default)]
    strip_prefix: bool,
    rewrite: Option<String>,
    #[serde(default)]
    request_headers: EditsSpec,
    #[serde(default)]
    response_headers: EditsSpec,
    #[serde(default)]
    timeouts: Timeouts,
    #[serde(default)]
    retries: Retries,
    limits: Option<LimitsSpec>,
    rate_limit: Option<RateLimitSpec>,
    cors: Option<CorsSpec>,
    compress: Option<CompressSpec>,
    #[serde(default, deserialize_with = "size")]
    max_body: Option<u64>,
    sticky: Option<StickySpec>,
    mirror: Option<MirrorSpec>,
    jwt: Option<JwtSpec>,
    api_keys: Option<ApiKeysSpec>,
    external_auth: Option<ExternalAuthSpec>,
}

/// The requests that a route matches.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct MatchSpec {
    #[serde(default)]
    hosts: Vec<Checked<HostPattern>>,
    path: Option<String>,
    exact: Option<String>,
    template: Option<String>,
    #[serde(default)]
    methods: Vec<Checked<Method>>,
    #[serde(default)]
    headers: BTreeMap<String, Checked<HeaderValue>>,
}

/// A destination of a share of the requests.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DestinationSpec {
    pub(crate) service: ServiceName,
    pub(crate) version: Option<String>,
    pub(crate) tag: Option<String>,
    #[serde(default = "one")]
    pub(crate) weight: u32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct EditsSpec {
    #[serde(default)]
    set: BTreeMap<String, Checked<HeaderValue>>,
    #[serde(default)]
    add: BTreeMap<String, Checked<HeaderValue>>,
    #[serde(default)]
    remove: Vec<Checked<HeaderName>>,
}

/// Those left out are the gateway's.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Timeouts {
    #[serde(default, deserialize_with = "duration")]
    pub(crate) connect: Option<Duration>,
    #[serde(default, deserialize_with = "duration")]
    pub(crate) first_byte: Option<Duration>,
    #[serde(default, deserialize_with = "duration")]
    pub(crate) idle: Option<Duration>,
    #[serde(default, deserialize_with = "duration")]
    pub(crate) upload_idle: Option<Duration>,
    #[serde(default, deserialize_with = "duration")]
    pub(crate) total: Option<Duration>,
}

/// Those left out are the gateway's.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Retries {
    pub(crate) attempts: Option<u32>,
    #[serde(default, deserialize_with = "size")]
    pub(crate) replay_limit: Option<u64>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct LimitsSpec {
    pub(crate) concurrent: usize,
    #[serde(default)]
    pub(crate) pending: usize,
    #[serde(default, deserialize_with = "duration")]
    pub(crate) max_wait: Option<Duration>,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RateLimitSpec {
    pub(crate) requests: u32,
    #[serde(default, deserialize_with = "duration")]
    pub(crate) per: Option<Duration>,
    pub(crate) burst: Option<u32>,
    #[serde(default)]
    pub(crate) by: RateBy,
    pub(crate) header: Option<Checked<HeaderName>>,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RateBy {
    #[default]
    Client,
    Header,
    Key,
    All,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CorsSpec {
    #[serde(default)]
    pub(crate) origins: Vec<String>,
    #[serde(default)]
    pub(crate) methods: Vec<Checked<Method>>,
    #[serde(default)]
    pub(crate) headers: Vec<Checked<HeaderName>>,
    #[serde(default)]
    pub(crate) expose: Vec<Checked<HeaderName>>,
    #[serde(default)]
    pub(crate) credentials: bool,
    #[serde(default, deserialize_with = "duration")]
    pub(crate) max_age: Option<Duration>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct MirrorSpec {
    pub(crate) service: ServiceName,
    pub(crate) version: Option<String>,
    pub(crate) tag: Option<String>,
    pub(crate) percent: Option<f64>,
    #[serde(default, deserialize_with = "size")]
    pub(crate) max_body: Option<u64>,
    pub(crate) max_in_flight: Option<usize>,
    #[serde(default, deserialize_with = "duration")]
    pub(crate) timeout: Option<Duration>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CompressSpec {
    #[serde(default, deserialize_with = "size")]
    pub(crate) min_size: Option<u64>,
    pub(crate) types: Option<Vec<String>>,
    pub(crate) level: Option<u32>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StickySpec {
    pub(crate) cookie: String,
    #[serde(default)]
    pub(crate) secure: bool,
}

/// Parses the content of the file at `path`.
///
/// # Errors
/// What is wrong, and at which line and column.
pub(crate) fn parse(path: &Path, content: &str) -> Result<RoutesFile, ConfigError> {
    let document = Document::parse(path, content)?;
    let error = |error: ReadError| document.error(&error, describe);
    let route = |node| {
        let fields: Fields = document.read(node).map_err(error)?;
        let position = document.position(node);
        let route = fields.into_route(position);
        route.map_err(|problem| located(path, position, &problem))
    };
    let nodes = document.list(&["routes"]).map_err(error)?;
    let routes: Vec<RouteSpec> = nodes.iter().map(route).collect::<Result<_, _>>()?;
    check_names(path, &routes)?;
    Ok(RoutesFile { routes })
}

/// Describes a problem. For an unknown key, it says what was probably meant.
fn describe(problem: &Problem) -> String {
    let (key, known) = match problem {
        Problem::Other(message) => return message.clone(),
        Problem::UnknownKey { key, known } => (key, *known),
    };
    let similar = closest(key, known.iter().copied());
    let is_typo = |meant: &&String| strsim::osa_distance(key, meant) == 1;
    if let Some(meant) = similar.first().filter(is_typo) {
        return format!("unknown key {key:?}; did you mean `{meant}`?");
    }
    let tables = tables();
    let has_key = |(_, keys): &&(&str, &[&str])| keys.contains(&key.as_str());
    let places: Vec<_> = tables.iter().filter(has_key).map(|it| it.0).collect();
    match (places.as_slice(), similar.first(), known) {
        (["a route", ..], ..) => format!("`{key}` belongs in a route"),
        ([_, ..], ..) => format!("`{key}` belongs in `{}`", places.join("` or `")),
        ([], Some(meant), _) => format!("unknown key {key:?}; did you mean `{meant}`?"),
        ([], None, [only]) => format!("unknown key {key:?}; the only key here is `{only}`"),
        ([], None, _) => format!(
            "unknown key {key:?}; the keys here are {}",
            known.join(", ")
        ),
    }
}

/// The tables of a route with their keys.
fn tables() -> [(&'static str, &'static [&'static str]); 16] {
    [
        ("a route", keys::<Fields>()),
        ("match", keys::<MatchSpec>()),
        ("split", keys::<DestinationSpec>()),
        ("request_headers", keys::<EditsSpec>()),
        ("response_headers", keys::<EditsSpec>()),
        ("timeouts", keys::<Timeouts>()),
        ("retries", keys::<Retries>()),
        ("limits", keys::<LimitsSpec>()),
        ("rate_limit", keys::<RateLimitSpec>()),
        ("cors", keys::<CorsSpec>()),
        ("compress", keys::<CompressSpec>()),
        ("sticky", keys::<StickySpec>()),
        ("mirror", keys::<MirrorSpec>()),
        ("jwt", keys::<JwtSpec>()),
        ("api_keys", keys::<ApiKeysSpec>()),
        ("external_auth", keys::<ExternalAuthSpec>()),
    ]
}

/// Checks that no two routes have the same name, which the access log and the pages show.
fn check_names(path: &Path, routes: &[RouteSpec]) -> Result<(), ConfigError> {
    let mut lines = HashMap::new();
    for route in routes {
        let (line, _) = route.position;
        if let Some(name) = &route.name
            && let Some(first) = lines.insert(name, line)
        {
            let problem = format!("the route at line {first} already has the name {name:?}");
            return Err(located(path, route.position, &problem));
        }
    }
    Ok(())
}

impl Fields {
    /// Validates the route.
    ///
    /// # Errors
    /// The first value that is wrong, or that contradicts another.
    fn into_route(self, position: (u64, u64)) -> Result<RouteSpec, String> {
        self.validate()?;
        let path = self.matches.path_pattern()?;
        let destinations = self.destinations()?;
        let rewrite = match (self.rewrite, self.strip_prefix) {
            (Some(_), true) => {
                return Err("`rewrite` and `strip_prefix` exclude each other".into());
            }
            (Some(rewrite), false) => Some(check_rewrite(rewrite, &path)?),
            (None, true) if matches!(path, PathPattern::Prefix(_)) => Some(String::new()),
            (None, true) => return Err("`strip_prefix` needs `match.path`".into()),
            (None, false) => None,
        };
        let auth = AuthSpec {
            jwt: self.jwt,
            api_keys: self.api_keys,
            external: self.external_auth,
        };
        auth.validate()?;
        let conditions = Conditions {
            methods: self
                .matches
                .methods
                .into_iter()
                .map(|method| method.0)
                .collect(),
            headers: pairs(self.matches.headers)?,
            ..Conditions::default()
        };
        Ok(RouteSpec {
            position,
            name: self.name,
            hosts: self.matches.hosts.into_iter().map(|host| host.0).collect(),
            path,
            conditions,
            destinations,
            rewrite,
            request_headers: self.request_headers.try_into()?,
            response_headers: self.response_headers.try_into()?,
            timeouts: self.timeouts,
            retries: self.retries,
            limits: self.limits,
            rate_limit: self.rate_limit,
            cors: self.cors,
            compress: self.compress,
            max_body: self.max_body,
            sticky: self.sticky,
            auth,
            mirror: self.mirror,
        })
    }

    /// Checks the values that are valid by themselves.
    fn validate(&self) -> Result<(), String> {
        self.timeouts.validate()?;
        if self.retries.attempts == Some(0) {
            return Err("`retries.attempts` counts the first attempt, so it is at least 1".into());
        }
        if (self.limits.as_ref()).is_some_and(|limits| limits.concurrent == 0) {
            return Err("`limits.concurrent` must be at least 1".into());
        }
        if let Some(limit) = &self.rate_limit {
            limit.validate()?;
            if limit.by == RateBy::Key && self.api_keys.is_none() {
                return Err("`rate_limit.by: key` needs `api_keys`".into());
            }
        }
        self.cors.as_ref().map_or(Ok(()), CorsSpec::validate)?;
        let compress = self.compress.as_ref();
        compress.map_or(Ok(()), CompressSpec::validate)?;
        self.mirror.as_ref().map_or(Ok(()), MirrorSpec::validate)?;
        self.sticky.as_ref().map_or(Ok(()), StickySpec::validate)
    }

    fn destinations(&self) -> Result<Vec<DestinationSpec>, String> {
        let has_subset = self.version.is_some() || self.tag.is_some();
        match (&self.service, self.split.is_empty()) {
            (Some(service), true) => Ok(vec![DestinationSpec {
                service: service.clone(),
                version: self.version.clone(),
                tag: self.tag.clone(),
                weight: 1,
            }]),
            (Some(_), false) => Err("`service` and `split` exclude each other".into()),
            (None, true) => Err("a route needs `service`, or `split` with several".into()),
            (None, false) if has_subset => {
                Err("with `split`, write `version` and `tag` in its entries".into())
            }
            (None, false) if self.split.iter().all(|part| part.weight == 0) => {
                Err("all weights of `split` are 0".into())
            }
            (None, false) => {
                let weights = self.split.iter().map(|part| u64::from(part.weight));
                if weights.sum::<u64>() > u64::from(u32::MAX) {
                    let most = u32::MAX;
                    return Err(format!("the weights of `split` add up to more than {most}"));
                }
                Ok(self.split.clone())
            }
        }
    }
}

impl Timeouts {
    fn validate(&self) -> Result<(), String> {
        for (name, limit) in [
            ("connect", self.connect),
            ("first_byte", self.first_byte),
            ("idle", self.idle),
            ("upload_idle", self.upload_idle),
            ("total", self.total),
        ] {
            if limit == Some(Duration::ZERO) {
                return Err(format!(
                    "`timeouts.{name}` must not be 0; without it, the default applies"
                ));
            }
        }
        Ok(())
    }
}

impl RateLimitSpec {
    fn validate(&self) -> Result<(), String> {
        if self.requests == 0 || self.per == Some(Duration::ZERO) || self.burst == Some(0) {
            return Err("`rate_limit` must allow at least one request".into());
        }
        if (self.by == RateBy::Header) != self.header.is_some() {
            return Err("`rate_limit.header` is needed with `by: header`, and only then".into());
        }
        Ok(())
    }
}

impl CorsSpec {
    fn validate(&self) -> Result<(), String> {
        if let Some(wrong) = self.origins.iter().find(|origin| !is_origin(origin)) {
            return Err(format!(
                "`cors.origins`: {wrong:?} is not an origin as browsers send it, such as \
                 https://shop.example or http://localhost:3000"
            ));
        }
        let allows_all = self.origins.is_empty() || self.origins.iter().any(|it| it == "*");
        if self.credentials && allows_all {
            return Err(
                "`cors.credentials` needs named `origins`: otherwise every page on the web could read what \
                 a logged-in user can"
                    .into(),
            );
        }
        Ok(())
    }
}

/// Whether it is `*`, `null`, or a scheme and a host in the form of the `Origin` header: in lower case, without
/// a default port and without a path.
fn is_origin(text: &str) -> bool {
    let is_plain = |c: char| {
        c.is_ascii_lowercase()
            || c.is_ascii_digit()
            || matches!(c, '.' | '-' | '_' | ':' | '[' | ']')
    };
    match text.split_once("://") {
        None => text == "*" || text == "null",
        Some(("http", host)) if host.ends_with(":80") => false,
        Some(("https", host)) if host.ends_with(":443") => false,
        Some((scheme, host)) => {
            !scheme.is_empty()
                && !host.is_empty()
                && scheme.chars().chain(host.chars()).all(is_plain)
        }
    }
}

impl CompressSpec {
    fn validate(&self) -> Result<(), String> {
        if self.level.is_some_and(|level| !(1..=9).contains(&level)) {
            return Err("`compress.level` is 1 (fast) to 9 (small)".into());
        }
        let mut types = self.types.iter().flatten();
        match types.find(|kind| kind.matches('/').count() != 1) {
            Some(wrong) => Err(format!(
                "`compress.types`: {wrong:?} is not a media type, such as text/html or text/*"
            )),
            None => Ok(()),
        }
    }
}

impl MirrorSpec {
    fn validate(&self) -> Result<(), String> {
        let is_share = |percent: f64| (0.0..=100.0).contains(&percent);
        if !self.percent.is_none_or(is_share) {
            return Err("`mirror.percent` is between 0 and 100".into());
        }
        if self.max_in_flight == Some(0) {
            return Err("`mirror.max_in_flight` must be at least 1".into());
        }
        Ok(())
    }
}

impl StickySpec {
    fn validate(&self) -> Result<(), String> {
        let name = &self.cookie;
        if is_cookie_name(name) {
            Ok(())
        } else {
            Err(format!("`sticky.cookie`: {name:?} is not a cookie name"))
        }
    }
}

impl MatchSpec {
    fn path_pattern(&self) -> Result<PathPattern, String> {
        match (&self.path, &self.exact, &self.template) {
            (None, None, None) => Ok(PathPattern::Prefix(String::new())),
            (Some(prefix), None, None) => PathPattern::prefix(prefix),
            (None, Some(path), None) if is_probe(path) => {
                Err(format!("`match.exact`: the gateway answers {path} itself"))
            }
            (None, Some(path), None) => PathPattern::exact(path),
            (None, None, Some(template)) => {
                let pattern = PathPattern::template(template)?;
                match repeated_parameter(&pattern) {
                    Some(name) => Err(format!("`match.template` has {{{name}}} twice")),
                    None => Ok(pattern),
                }
            }
            _ => Err("`path`, `exact` and `template` exclude each other".into()),
        }
    }
}

impl TryFrom<EditsSpec> for HeaderEdits {
    type Error = String;

    fn try_from(spec: EditsSpec) -> Result<Self, String> {
        Ok(Self {
            remove: spec.remove.into_iter().map(|name| name.0).collect(),
            set: pairs(spec.set)?,
            add: pairs(spec.add)?,
        })
    }
}

fn pairs(
    map: BTreeMap<String, Checked<HeaderValue>>,
) -> Result<Vec<(HeaderName, HeaderValue)>, String> {
    map.into_iter()
        .map(|(name, value)| Ok((HeaderName::check(&name)?, value.0)))
        .collect()
}

/// Checks that a rewritten path begins with a slash and uses only parameters of the template.
fn check_rewrite(rewrite: String, pattern: &PathPattern) -> Result<String, String> {
    PathPattern::template(&rewrite).or_else(|_| PathPattern::prefix(&rewrite))?;
    if let Ok(PathPattern::Template(segments)) = PathPattern::template(&rewrite) {
        let known: Vec<&str> = match pattern {
            PathPattern::Template(segments) => segments.iter().filter_map(parameter).collect(),
            _ => Vec::new(),
        };
        if let Some(unknown) = segments
            .iter()
            .filter_map(parameter)
            .find(|name| !known.contains(name))
        {
            return Err(format!("`rewrite`: `match.template` has no {{{unknown}}}"));
        }
    }
    Ok(rewrite.trim_end_matches('/').to_owned())
}

/// The name of a parameter that a template has twice.
fn repeated_parameter(pattern: &PathPattern) -> Option<&str> {
    let PathPattern::Template(segments) = pattern else {
        return None;
    };
    let mut seen = HashSet::new();
    let mut names = segments.iter().filter_map(parameter);
    names.find(|name| !seen.insert(*name))
}

fn parameter(segment: &Segment) -> Option<&str> {
    match segment {
        Segment::Parameter(name) => Some(name),
        Segment::Literal(_) => None,
    }
}

fn is_cookie_name(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
}

fn one() -> u32 {
    1
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"
routes:
  - name: orders
    match:
      hosts: [shop.example, "*.shop.example"]
      path: /orders
      methods: [GET, POST]
      headers: {x-beta: "1"}
    split:
      - {service: orders, version: "1.0", weight: 95}
      - {service: orders, version: "1.1", weight: 5}
    strip_prefix: true
    request_headers: {set: {x-team: orders}, remove: [x-debug]}
    response_headers: {add: {x-served-by: waypost}}
    timeouts: {first_byte: 10s, idle: 1m, total: 30s}
    retries: {attempts: 2, replay_limit: 16KiB}
    limits: {concurrent: 100, pending: 50, max_wait: 2s}
    rate_limit: {requests: 10, per: 1s, burst: 20, by: header, header: x-api-key}
    cors: {origins: ["https://shop.example", "http://localhost:8080"], credentials: true}
    max_body: 10MB
    sticky: {cookie: at}
"#;

    /// A wrong line of a route, and the error.
    const WRONG_YAML: &str = r#"
path: /x => 3:5: `path` belongs in `match` or `external_auth`
timeout: 3s => 3:5: unknown key "timeout"; did you mean `timeouts`?
macth: {path: /x} => 3:5: unknown key "macth"; did you mean `match`?
match: {paht: /x} => 3:13: unknown key "paht"; did you mean `path`?
match: {host: a.b} => 3:13: unknown key "host"; did you mean `hosts`?
match: {service: b} => 3:13: `service` belongs in a route
attempts: 3 => 3:5: `attempts` belongs in `retries`
percent: 5 => 3:5: `percent` belongs in `mirror`
remove: [a] => 3:5: `remove` belongs in `request_headers` or `response_headers`
requestHeaders: {} => 3:5: unknown key "requestHeaders"; did you mean `request_headers`?
compress: {gzip: true} => 3:16: unknown key "gzip"; the keys here are min_size, types, level
timeouts: 3s => 3:15: expected a mapping with keys such as connect, first_byte, idle, upload_idle
timeouts: {connect: [1s]} => 3:25: expected a string
retries: {attempts: many} => 3:25: expected a whole number from 0 to 4294967295
retries: {attempts: -1} => 3:25: expected a whole number from 0 to 4294967295
retries: {attempts: 99999999999} => 3:25: expected a whole number from 0 to 4294967295
limits: {concurrent: -1} => 3:26: expected a whole number of 0 or more
limits: {concurrent: 184467440737095516150} => 3:26: expected a whole number of 0 or more
limits: {} => 3:13: the key `concurrent` is missing
strip_prefix: 1 => 3:19: expected true or false
rate_limit: {requests: 1, by: user} => 3:35: "user" is unknown; use one of client, header, key, all
rate_limit: {requests: 1, by: 3} => 3:35: expected one of client, header, key, all
request_headers: {set: [a]} => 3:28: expected a mapping of names to values
match: {methods: GET} => 3:22: expected a list, such as [a, b]
max_body: {} => 3:15: expected a number of bytes, such as 1000, 64KiB or 10MB
max_body: ~ => 3:15: there is no value; expected a number of bytes, such as 1000, 64KiB or 10MB
mirror: {service: b, percent: all} => 3:35: expected a number
split: {service: b} => 3:12: expected a list, such as [a, b]
service: b => 3:5: the key "service" is there twice; keep one
name: [a] => 3:11: expected a string
"#;

    /// The same in TOML.
    const WRONG_TOML: &str = r#"
path = "/x" => 3:1: `path` belongs in `match` or `external_auth`
version = 1.10 => 3:11: expected a string in quotes
strip_prefix = 1 => 3:16: expected true or false
timeouts = "3s" => 3:12: expected a table with keys such as connect, first_byte, idle, upload_idle
timeouts = 3 => 3:12: expected a table with keys such as connect, first_byte, idle, upload_idle
retries = {attempts = "3"} => 3:23: expected a whole number from 0 to 4294967295
max_body = -1 => 3:12: a number of bytes can't be negative
match.hosts = "a.b" => 3:15: expected a list, such as [a, b]
service = "b" => 3:1: duplicate key
"#;

    fn error(name: &str, text: &str) -> String {
        parse(Path::new(name), text).unwrap_err().to_string()
    }

    #[test]
    fn an_anchor_may_have_any_number_of_aliases() {
        let route = |n| format!("  - {{match: {{path: /{n}}}, service: s, timeouts: *limits}}\n");
        let first = "routes:\n  - {match: {path: /}, service: s, timeouts: &limits {idle: 1m}}\n";
        let text = format!("{first}{}", (0..150).map(route).collect::<String>());
        let file = parse(Path::new("routes.yaml"), &text).unwrap();
        let minute = Some(Duration::from_secs(60));
        assert_eq!(file.routes.len(), 151);
        assert!(
            file.routes
                .iter()
                .all(|route| route.timeouts.idle == minute)
        );
    }

    #[test]
    fn every_key_is_read() {
        let file = parse(Path::new("routes.yaml"), FULL).unwrap();
        let [route] = file.routes.as_slice() else {
            panic!("{file:?}");
        };
        assert_eq!(route.path, PathPattern::Prefix("/orders".into()));
        assert_eq!(route.destinations[1].weight, 5);
        assert_eq!(route.rewrite.as_deref(), Some(""));
        assert_eq!(route.timeouts.total, Some(Duration::from_secs(30)));
        assert_eq!(route.retries.replay_limit, Some(16 * 1024));
        assert_eq!(route.max_body, Some(10_000_000));
        assert_eq!(route.conditions.methods, [Method::GET, Method::POST]);
    }

    #[test]
    fn toml_is_read_too() {
        let text = "[[routes]]\nservice = \"auth\"\nmatch.path = \"/login\"\nmax_body = 5\n";
        let file = parse(Path::new("routes.toml"), text).unwrap();
        assert_eq!(file.routes[0].destinations[0].service.as_str(), "auth");
        assert_eq!(file.routes[0].max_body, Some(5));
    }

    #[test]
    fn an_empty_file_has_no_routes() {
        for name in ["a.yaml", "a.toml"] {
            assert!(
                parse(Path::new(name), "\n").unwrap().routes.is_empty(),
                "{name}"
            );
            assert!(
                parse(Path::new(name), "# None yet\n")
                    .unwrap()
                    .routes
                    .is_empty(),
                "{name}"
            );
        }
    }

    #[test]
    fn an_error_says_what_would_be_right() {
        let cases = |text: &'static str| text.lines().filter_map(|line| line.split_once(" => "));
        for (key, expected) in cases(WRONG_YAML) {
            let text = format!("routes:\n  - service: a\n    {key}\n");
            assert_eq!(error("r.yaml", &text), format!("r.yaml:{expected}"));
        }
        for (key, expected) in cases(WRONG_TOML) {
            let text = format!("[[routes]]\nservice = \"a\"\n{key}\n");
            assert_eq!(error("r.toml", &text), format!("r.toml:{expected}"));
        }
    }

    #[test]
    fn a_file_that_is_no_list_of_routes_is_told_how_to_begin() {
        let yaml_list = "expected `routes:` and a list whose items begin with `- `";
        let toml_list = "expected tables that each begin with [[routes]]";
        let typo = "unknown key \"route\"; did you mean `routes`?";
        for (name, text, position, expected) in [
            ("r.yaml", "route:\n  - service: a\n", "1:1", typo),
            ("r.yaml", "- service: a\n", "1:1", yaml_list),
            ("r.yaml", "routes:\n  service: a\n", "2:3", yaml_list),
            ("r.yaml", "routes: 3\n", "1:9", yaml_list),
            (
                "r.yaml",
                "service: a\n",
                "1:1",
                "`service` belongs in a route",
            ),
            (
                "r.yaml",
                "routes: [a]\n",
                "1:10",
                "expected a mapping with keys such as name, match, service, version",
            ),
            (
                "r.yaml",
                "x: &x {idle: 1m}\nroutes:\n - {service: a, timeouts: *x}\n",
                "1:1",
                "unknown key \"x\"; the only key here is `routes`",
            ),
            ("r.toml", "[[route]]\nservice = \"a\"\n", "1:3", typo),
            ("r.toml", "[routes]\nservice = \"a\"\n", "1:1", toml_list),
            ("r.toml", "routes = 3\n", "1:10", toml_list),
        ] {
            assert_eq!(error(name, text), format!("{name}:{position}: {expected}"));
        }
    }

    #[test]
    fn an_alias_is_read_like_the_value_it_stands_for_and_an_error_is_where_that_is() {
        let timeouts = |first: &str, second: &str| {
            let text = format!(
                "routes:\n- {{service: a, timeouts: &x {first}}}\n- {{service: b, timeouts: {second}}}\n"
            );
            parse(Path::new("r.yaml"), &text).map_err(|error| error.to_string())
        };
        let merged = timeouts("{idle: 1m}", "{<<: *x, total: 2m}").unwrap();
        let limits = &merged.routes[1].timeouts;
        assert_eq!(limits.idle, Some(Duration::from_secs(60)));
        assert_eq!(limits.total, Some(Duration::from_secs(120)));
        let error = timeouts("{idle: 1m}", "{<<: *x, x: 1}").unwrap_err();
        assert!(
            error.starts_with("r.yaml:3:35: unknown key \"x\""),
            "{error}"
        );
        let error = timeouts("{idle: 1}", "*x").unwrap_err();
        assert!(
            error.starts_with("r.yaml:2:36: \"1\" is not a time"),
            "{error}"
        );
    }

    #[test]
    fn what_looks_like_a_number_is_a_string_where_yaml_expects_one() {
        for (text, version) in [
            ("1.10", "1.10"),
            ("2", "2"),
            ("0x10", "0x10"),
            ("true", "true"),
            ("no", "no"),
            ("1e3", "1e3"),
            ("2026-11-30", "2026-11-30"),
            ("'1.10' # comment", "1.10"),
            ("!!str 1.10", "1.10"),
            (">-\n      1.10", "1.10"),
        ] {
            let text = format!("# é\nroutes:\n  - service: a\n    version: {text}\n");
            let file = parse(Path::new("r.yaml"), &text).unwrap();
            let route = &file.routes[0].destinations[0];
            assert_eq!(route.version.as_deref(), Some(version), "{text}");
        }
    }

    #[test]
    fn deep_nesting_is_an_error_and_not_an_overflow() {
        let lists = format!("{}{}", "[".repeat(2_000), "]".repeat(2_000));
        for (name, text) in [
            ("r.yaml", format!("routes: {lists}")),
            ("r.toml", format!("routes = {lists}")),
        ] {
            let error = error(name, &text);
            assert!(error.starts_with(&format!("{name}:1:")), "{error}");
        }
    }

    #[test]
    fn an_error_names_line_and_cause() {
        for (text, at, cause) in [
            (
                "routes:\n  - service: a\n    servcie: b\n",
                "r.yaml:3:",
                "servcie",
            ),
            (
                "routes:\n  - service: \"a b\"\n",
                "r.yaml:2:",
                "is not allowed",
            ),
            (
                "routes:\n  - service: a\n    match: {hosts: [\"a:80\"]}\n",
                "r.yaml:3:",
                "without a port",
            ),
            (
                "routes:\n  - service: a\n  - match: {path: /x}\n",
                "r.yaml:3:",
                "needs `service`",
            ),
            (
                "routes:\n  - service: a\n    match:\n      path: x\n",
                "r.yaml:",
                "begin with a slash",
            ),
            (
                "routes:\n  - service: a\n    timeouts: {first_byte: 10}\n",
                "r.yaml:3:",
                "such as 500ms",
            ),
            (
                "routes:\n  - service: a\n    max_body: 10XB\n",
                "r.yaml:3:",
                "not a number of bytes",
            ),
            (
                "routes:\n  - service: a\n    max_body: [1]\n",
                "r.yaml:3:",
                "a number of bytes, such as",
            ),
            ("routes: [", "r.yaml:", ""),
        ] {
            let error = error("r.yaml", text);
            assert!(
                error.starts_with(at) && error.contains(cause),
                "{text:?}: {error}"
            );
        }
        let twice = "routes:\n- {service: a, name: x}\n- {service: b, name: x}\n";
        let found = error("r.yaml", twice);
        assert!(
            found.starts_with("r.yaml:3:") && found.contains("line 2"),
            "{found}"
        );
        let toml = "[[routes]]\nservice = \"a\"\n[[routes]]\nmatch.path = \"/x\"\n";
        let found = error("r.toml", toml);
        assert!(
            found.starts_with("r.toml:3:") && found.contains("needs `service`"),
            "{found}"
        );
    }

    #[test]
    fn rules_that_contradict_each_other_are_errors() {
        for (route, cause) in [
            ("service: a, split: [{service: b}]", "exclude each other"),
            (
                "service: a, strip_prefix: true, rewrite: /x, match: {path: /a}",
                "exclude each other",
            ),
            (
                "service: a, strip_prefix: true, match: {exact: /a}",
                "needs `match.path`",
            ),
            (
                "service: a, match: {path: /a, exact: /b}",
                "exclude each other",
            ),
            ("split: [{service: a, weight: 0}]", "weights"),
            (
                "service: a, rewrite: \"/x/{id}\", match: {path: /a}",
                "has no {id}",
            ),
            (
                "service: a, rate_limit: {requests: 1, by: header}",
                "rate_limit.header",
            ),
            ("service: a, rate_limit: {requests: 0}", "at least one"),
            ("service: a, retries: {attempts: 0}", "at least 1"),
            (
                "service: a, mirror: {service: b, percent: 101}",
                "between 0 and 100",
            ),
            (
                "service: a, mirror: {service: b, max_in_flight: 0}",
                "at least 1",
            ),
            ("service: a, compress: {level: 10}", "1 (fast) to 9"),
            ("service: a, compress: {level: 0}", "1 (fast) to 9"),
            ("service: a, compress: {types: [a/b/c]}", "not a media type"),
            (
                "service: a, mirror: {service: b, percent: -1}",
                "between 0 and 100",
            ),
            (
                "service: a, rate_limit: {requests: 1, header: x-a}",
                "only then",
            ),
            (
                "service: a, rate_limit: {requests: 1, per: 0s}",
                "at least one",
            ),
            (
                "service: a, cors: {origins: [\"*\", \"https://a\"], credentials: true}",
                "needs named `origins`",
            ),
            ("service: a, sticky: {cookie: \"\"}", "not a cookie name"),
            ("service: a, timeouts: {connect: 0s}", "must not be 0"),
            ("service: a, timeouts: {idle: 0s}", "`timeouts.idle`"),
            (
                "service: a, timeouts: {first_byte: 0s}",
                "`timeouts.first_byte`",
            ),
            (
                "service: a, timeouts: {upload_idle: 0s}",
                "`timeouts.upload_idle`",
            ),
            ("service: a, timeouts: {total: 0s}", "`timeouts.total`"),
            (
                "service: a, rate_limit: {requests: 1, burst: 0}",
                "at least one",
            ),
            (
                "split: [{service: a, weight: 4294967295}, {service: b}]",
                "more than 4294967295",
            ),
            ("split: [{service: a, weight: -1}]", "a whole number"),
            (
                "service: a, cors: {origins: [\"https://a.b/\"]}",
                "as browsers send",
            ),
            (
                "service: a, cors: {origins: [\"https://*.a\"]}",
                "as browsers send",
            ),
            ("service: a, cors: {origins: [a.b]}", "as browsers send"),
            (
                "service: a, cors: {origins: [\"https://A.b\"]}",
                "as browsers send",
            ),
            (
                "service: a, cors: {origins: [\"https://a:443\"]}",
                "as browsers send",
            ),
            (
                "service: a, cors: {origins: [\"http://a:80\"]}",
                "as browsers send",
            ),
            (
                "service: a, cors: {credentials: true}",
                "needs named `origins`",
            ),
            ("service: a, compress: {types: [text]}", "not a media type"),
            ("service: a, match: {methods: [CONNECT]}", "never forwarded"),
            ("service: a, match: {exact: /readyz}", "itself"),
            ("service: a, match: {template: \"/{b}/{b}\"}", "{b} twice"),
            ("service: a, match: {hosts: a}", "expected a list"),
            ("service: a, service: b", "is there twice"),
            ("service: a, sticky: {cookie: \"a;b\"}", "not a cookie name"),
            ("service: a, match: {methods: [get]}", "in capitals"),
            (
                "service: a, request_headers: {set: {connection: x}}",
                "one connection",
            ),
        ] {
            let error = error("r.yaml", &format!("routes:\n  - {{{route}}}\n"));
            assert!(error.contains(cause), "{route}: {error}");
        }
    }

    #[test]
    fn an_origin_is_written_as_browsers_send_it() {
        for origin in [
            "*",
            "null",
            "https://shop.example",
            "https://shop-2.example_a:8443",
            "http://localhost:3000",
            "http://[::1]:3000",
            "http://a:443",
            "https://a:80",
            "chrome-extension://abc",
        ] {
            assert!(is_origin(origin), "{origin}");
        }
        for wrong in [
            "",
            "nul",
            "shop.example",
            "://shop.example",
            "https://",
            "https://shop.example/",
            "https://shop.example?a",
            "https://Shop.example",
            "HTTPS://shop.example",
            "https://a:443",
            "http://a:80",
            "https://*.example",
            "https://a b",
        ] {
            assert!(!is_origin(wrong), "{wrong}");
        }
    }

    #[test]
    fn values_at_a_limit_are_allowed() {
        for route in [
            "service: a, compress: {level: 1}",
            "service: a, compress: {level: 9}",
            "service: a, compress: {types: [text/html, \"text/*\"]}",
            "service: a, mirror: {service: b, percent: 0}",
            "service: a, mirror: {service: b, percent: 100, max_in_flight: 1}",
            "service: a, rate_limit: {requests: 1, per: 1ms, burst: 1}",
            "service: a, retries: {attempts: 1}",
            "service: a, timeouts: {connect: 1ms, first_byte: 1ms, idle: 1ms, upload_idle: 1ms}",
            "split: [{service: a, weight: 4294967294}, {service: b, weight: 1}]",
            "split: [{service: a, weight: 0}, {service: b, weight: 1}]",
            "service: a, cors: {origins: [\"https://a\"], credentials: true}",
            "service: a, match: {template: \"/{b}/{c}\"}, rewrite: \"/{c}/{b}\"",
            "service: a, sticky: {cookie: Az0-_.}",
        ] {
            let text = format!("routes:\n  - {{{route}}}\n");
            let parsed = parse(Path::new("r.yaml"), &text);
            assert!(parsed.is_ok(), "{route}: {}", parsed.unwrap_err());
        }
    }
}
