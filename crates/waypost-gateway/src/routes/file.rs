//! The routes file: YAML, or TOML if its name ends in `.toml`. Errors have line and column.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use serde::Deserialize;
use waypost::{ConfigError, ServiceName, parse_yaml};

use super::auth_spec::{ApiKeysSpec, AuthSpec, ExternalAuthSpec, JwtSpec};
use super::pattern::{Conditions, HostPattern, PathPattern, Segment};
use super::values::{Check, Checked, duration, size};
use crate::header_edits::HeaderEdits;

/// A routes file.
#[derive(Debug, Default)]
pub(crate) struct RoutesFile {
    /// The routes. Their order decides between routes that are equally specific.
    pub(crate) routes: Vec<RouteSpec>,
}

/// A file in YAML.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct YamlFile {
    #[serde(default)]
    routes: Vec<serde_saphyr::Spanned<RouteSpec>>,
}

/// A file in TOML, with the positions that errors otherwise lack.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TomlFile {
    #[serde(default)]
    routes: Vec<toml::Spanned<Fields>>,
}

/// One validated route of the file.
#[derive(Debug, Deserialize)]
#[serde(try_from = "Fields")]
pub(crate) struct RouteSpec {
    /// Line and column in the file.
    pub(crate) position: Option<(u64, u64)>,
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

#[derive(Debug, Deserialize)]
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
    let at = |position, problem: &dyn Display| located(path, position, problem);
    let file = if path.extension().is_some_and(|ending| ending == "toml") {
        let position = |at: usize| Some(line_and_column(content, at));
        let file: TomlFile = toml::from_str(content).map_err(|error| {
            let start = error.span().map(|span| span.start);
            at(start.and_then(position), &error.message())
        })?;
        let routes = file.routes.into_iter().map(|fields| {
            let position = position(fields.span().start);
            let route = RouteSpec::try_from(fields.into_inner());
            route
                .map(|route| RouteSpec { position, ..route })
                .map_err(|problem| at(position, &problem))
        });
        routes.collect::<Result<_, _>>()?
    } else {
        // An empty file, or one with only comments, is `null`.
        let file: Option<YamlFile> = parse_yaml(path.display(), content)?;
        let routes = file.map(|file| file.routes).unwrap_or_default();
        let routes = routes.into_iter().map(|route| RouteSpec {
            position: Some((route.referenced.line(), route.referenced.column())),
            ..route.value
        });
        routes.collect()
    };
    Ok(RoutesFile { routes: file })
}

/// An error at a line and column of the file.
pub(super) fn located(
    path: &Path,
    position: Option<(u64, u64)>,
    problem: &dyn Display,
) -> ConfigError {
    let path = path.display();
    let location = match position {
        Some((line, column)) => format!("{path}:{line}:{column}"),
        None => path.to_string(),
    };
    ConfigError::new(location, problem.to_string())
}

fn line_and_column(text: &str, at: usize) -> (u64, u64) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() as u64 + 1;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (line, before.len().saturating_sub(start) as u64 + 1)
}

impl TryFrom<Fields> for RouteSpec {
    type Error = String;

    fn try_from(fields: Fields) -> Result<Self, String> {
        let path = fields.matches.path_pattern()?;
        let destinations = fields.destinations()?;
        let rewrite = match (fields.rewrite, fields.strip_prefix) {
            (Some(_), true) => {
                return Err("`rewrite` and `strip_prefix` exclude each other".into());
            }
            (Some(rewrite), false) => Some(check_rewrite(rewrite, &path)?),
            (None, true) if matches!(path, PathPattern::Prefix(_)) => Some(String::new()),
            (None, true) => return Err("`strip_prefix` needs `match.path`".into()),
            (None, false) => None,
        };
        if let Some(limit) = &fields.rate_limit {
            if limit.requests == 0 || limit.per == Some(Duration::ZERO) {
                return Err("`rate_limit` must allow at least one request".into());
            }
            if limit.by == RateBy::Key && fields.api_keys.is_none() {
                return Err("`rate_limit.by: key` needs `api_keys`".into());
            }
            if (limit.by == RateBy::Header) != limit.header.is_some() {
                return Err(
                    "`rate_limit.header` is needed with `by: header`, and only then".into(),
                );
            }
        }
        if fields
            .limits
            .as_ref()
            .is_some_and(|limits| limits.concurrent == 0)
        {
            return Err("`limits.concurrent` must be at least 1".into());
        }
        if let Some(mirror) = &fields.mirror {
            if !mirror
                .percent
                .is_none_or(|percent| (0.0..=100.0).contains(&percent))
            {
                return Err("`mirror.percent` is between 0 and 100".into());
            }
            if mirror.max_in_flight == Some(0) {
                return Err("`mirror.max_in_flight` must be at least 1".into());
            }
        }
        if fields.timeouts.connect == Some(Duration::ZERO) {
            return Err("`timeouts.connect` must not be 0".into());
        }
        if let Some(CompressSpec {
            level: Some(level), ..
        }) = &fields.compress
            && !(1..=9).contains(level)
        {
            return Err("`compress.level` is 1 (fast) to 9 (small)".into());
        }
        if fields.retries.attempts == Some(0) {
            return Err("`retries.attempts` counts the first attempt, so it is at least 1".into());
        }
        if let Some(sticky) = &fields.sticky
            && !is_cookie_name(&sticky.cookie)
        {
            return Err(format!(
                "`sticky.cookie`: {:?} is not a cookie name",
                sticky.cookie
            ));
        }
        let auth = AuthSpec {
            jwt: fields.jwt,
            api_keys: fields.api_keys,
            external: fields.external_auth,
        };
        auth.validate()?;
        let conditions = Conditions {
            methods: fields
                .matches
                .methods
                .into_iter()
                .map(|method| method.0)
                .collect(),
            headers: pairs(fields.matches.headers)?,
            ..Conditions::default()
        };
        Ok(Self {
            position: None,
            name: fields.name,
            hosts: fields
                .matches
                .hosts
                .into_iter()
                .map(|host| host.0)
                .collect(),
            path,
            conditions,
            destinations,
            rewrite,
            request_headers: fields.request_headers.try_into()?,
            response_headers: fields.response_headers.try_into()?,
            timeouts: fields.timeouts,
            retries: fields.retries,
            limits: fields.limits,
            rate_limit: fields.rate_limit,
            cors: fields.cors,
            compress: fields.compress,
            max_body: fields.max_body,
            sticky: fields.sticky,
            auth,
            mirror: fields.mirror,
        })
    }
}

impl Fields {
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
            (None, false) => Ok(self.split.clone()),
        }
    }
}

impl MatchSpec {
    fn path_pattern(&self) -> Result<PathPattern, String> {
        match (&self.path, &self.exact, &self.template) {
            (None, None, None) => Ok(PathPattern::Prefix(String::new())),
            (Some(prefix), None, None) => PathPattern::prefix(prefix),
            (None, Some(path), None) => PathPattern::exact(path),
            (None, None, Some(template)) => PathPattern::template(template),
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
    cors: {origins: ["https://shop.example"], credentials: true}
    max_body: 10MB
    sticky: {cookie: at}
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
            ("routes: [", "r.yaml:", ""),
        ] {
            let error = error("r.yaml", text);
            assert!(
                error.starts_with(at) && error.contains(cause),
                "{text:?}: {error}"
            );
        }
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
            ("service: a, timeouts: {connect: 0s}", "must not be 0"),
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
}
