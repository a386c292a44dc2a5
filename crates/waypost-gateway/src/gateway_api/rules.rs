//! Translates the rules of an HTTPRoute. What can't be translated is reported, and never ignored: the
//! requests of such a rule fail.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use waypost::ServiceName;

use super::Settings;
use super::conditions::Problem;
use super::objects::{
    BackendRef, Filter, HeaderModifier, HttpRoute, Match, Objects, PathModifier, RequestMirror,
    RequestRedirect, Rule, Service, ValueMatch,
};
use crate::header_edits::HeaderEdits;
use crate::routes::{
    Conditions, Expression, PathChange, PathPattern, Redirect, RuleAction, ValuePattern,
};

/// The time limit that means "no limit".
const UNLIMITED: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// A share of 100 %, in millionths.
const ALL: u32 = 1_000_000;

/// A rule as the gateway applies it.
pub(super) struct TranslatedRule {
    /// Its valid matches, with their positions.
    pub(super) matches: Vec<(usize, PathPattern, Conditions)>,
    pub(super) action: Arc<RuleAction>,
    /// What isn't supported or valid.
    pub(super) invalid: Vec<Problem>,
    /// References that can't be resolved.
    pub(super) unresolved: Vec<Problem>,
}

/// What is needed to resolve references.
pub(super) struct References<'a> {
    objects: &'a Objects,
    services: HashMap<(&'a str, &'a str), &'a Service>,
    settings: &'a Settings,
}

pub(super) fn translate(
    rule: &Rule,
    route: &HttpRoute,
    references: &References<'_>,
) -> TranslatedRule {
    let (mut invalid, mut unresolved) = (Vec::new(), Vec::new());
    let mut matches = Vec::new();
    let everything = [Match::default()];
    let written = match rule.matches.as_slice() {
        [] => &everything[..],
        written => written,
    };
    for (index, written) in written.iter().enumerate() {
        match (path(written.path.as_ref()), conditions(written)) {
            (Ok(path), Ok(conditions)) => matches.push((index, path, conditions)),
            (Err(error), _) | (_, Err(error)) => {
                invalid.push(Problem::new("UnsupportedValue", error));
            }
        }
    }
    for (field, value) in [
        ("retry", &rule.retry),
        ("sessionPersistence", &rule.session_persistence),
    ] {
        if value.is_some() {
            let message = format!("{field} is not supported");
            invalid.push(Problem::new("UnsupportedValue", message));
        }
    }
    let mut action = RuleAction::default();
    let mut is_usable = true;
    for filter in &rule.filters {
        if let Err(problem) = apply_filter(filter, route, references, &mut action, &mut unresolved)
        {
            invalid.push(problem);
            is_usable = false;
        }
    }
    if action.redirect.is_some() && (action.host.is_some() || !rule.backend_refs.is_empty()) {
        let message = "RequestRedirect can't be combined with URLRewrite or backendRefs";
        invalid.push(Problem::new("IncompatibleFilters", message));
        is_usable = false;
    }
    let replaces_prefix = matches!(action.path, Some(PathChange::Prefix(_)));
    if replaces_prefix
        && !matches
            .iter()
            .all(|(_, path, _)| matches!(path, PathPattern::Prefix(_)))
    {
        let message = "ReplacePrefixMatch needs matches with PathPrefix";
        invalid.push(Problem::new("UnsupportedValue", message));
        is_usable = false;
    }
    match timeouts(rule) {
        Ok((total, first_byte)) => (action.total, action.first_byte) = (total, first_byte),
        Err(error) => {
            invalid.push(Problem::new("UnsupportedValue", error));
            is_usable = false;
        }
    }
    for backend in &rule.backend_refs {
        let weight = backend.weight.unwrap_or(1);
        match references.resolve(backend, route) {
            Ok(name) if backend.filters.is_empty() => action.backends.push((name, weight)),
            Ok(_) => {
                action.unresolved = action.unresolved.saturating_add(weight);
                let message = "filters of a backendRef are not supported";
                invalid.push(Problem::new("UnsupportedValue", message));
            }
            Err(problem) => {
                action.unresolved = action.unresolved.saturating_add(weight);
                unresolved.push(problem);
            }
        }
    }
    if !is_usable {
        action = RuleAction::default();
    }
    TranslatedRule {
        matches,
        action: Arc::new(action),
        invalid,
        unresolved,
    }
}

// --- matches ---

fn path(written: Option<&ValueMatch>) -> Result<PathPattern, String> {
    let Some(written) = written else {
        return PathPattern::prefix("/");
    };
    let value = written.value.as_deref().unwrap_or("/");
    match written.r#type.as_deref() {
        None | Some("PathPrefix") => PathPattern::prefix(value),
        Some("Exact") => PathPattern::exact(value),
        Some("RegularExpression") => Expression::parse(value).map(PathPattern::Expression),
        Some(other) => Err(format!("path match of type {other:?}")),
    }
}

fn conditions(written: &Match) -> Result<Conditions, String> {
    let mut conditions = Conditions::default();
    if let Some(method) = &written.method {
        let parsed = Method::from_bytes(method.as_bytes());
        conditions.methods = vec![parsed.map_err(|_| format!("{method:?} is not a method"))?];
    }
    for header in &written.headers {
        let name = header_name(&header.name)?;
        // If a header has several matches, only the first is used.
        let is_known = conditions.headers.iter().any(|(known, _)| *known == name)
            || (conditions.header_expressions.iter()).any(|(known, _)| *known == name);
        if is_known {
            continue;
        }
        match value_pattern(header)? {
            ValuePattern::Exact(value) => {
                conditions.headers.push((name, header_value(&value)?));
            }
            ValuePattern::Expression(value) => conditions.header_expressions.push((name, value)),
        }
    }
    for parameter in &written.query_params {
        let is_known = conditions
            .query
            .iter()
            .any(|(known, _)| *known == parameter.name);
        if !is_known {
            let pattern = value_pattern(parameter)?;
            conditions.query.push((parameter.name.clone(), pattern));
        }
    }
    Ok(conditions)
}

fn value_pattern(written: &ValueMatch) -> Result<ValuePattern, String> {
    let value = written.value.clone().unwrap_or_default();
    match written.r#type.as_deref() {
        None | Some("Exact") => Ok(ValuePattern::Exact(value)),
        Some("RegularExpression") => Expression::parse(&value).map(ValuePattern::Expression),
        Some(other) => Err(format!("match of {:?} of type {other:?}", written.name)),
    }
}

fn header_name(text: &str) -> Result<HeaderName, String> {
    HeaderName::try_from(text).map_err(|_| format!("{text:?} is not a header name"))
}

fn header_value(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text).map_err(|_| format!("{text:?} can't be the value of a header"))
}

// --- filters ---

fn apply_filter(
    filter: &Filter,
    route: &HttpRoute,
    references: &References<'_>,
    action: &mut RuleAction,
    unresolved: &mut Vec<Problem>,
) -> Result<(), Problem> {
    let unsupported = |error: String| Problem::new("UnsupportedValue", error);
    let kind = filter.r#type.as_str();
    let missing = || unsupported(format!("the filter {kind} has no settings"));
    match kind {
        "RequestHeaderModifier" => {
            let edits = filter
                .request_header_modifier
                .as_ref()
                .ok_or_else(missing)?;
            action
                .request_headers
                .extend(header_edits(edits).map_err(unsupported)?);
        }
        "ResponseHeaderModifier" => {
            let edits = filter
                .response_header_modifier
                .as_ref()
                .ok_or_else(missing)?;
            action
                .response_headers
                .extend(header_edits(edits).map_err(unsupported)?);
        }
        "RequestRedirect" => {
            let written = filter.request_redirect.as_ref().ok_or_else(missing)?;
            let settings = references.settings;
            let scheme = if settings.has_tls { "https" } else { "http" };
            let listener = (scheme, settings.port);
            action.redirect = Some(redirect(written, listener).map_err(unsupported)?);
            action.path = path_change(written.path.as_ref()).map_err(unsupported)?;
        }
        "URLRewrite" => {
            let written = filter.url_rewrite.as_ref().ok_or_else(missing)?;
            let host = written.hostname.as_deref().map(header_value);
            action.host = host.transpose().map_err(unsupported)?;
            action.path = path_change(written.path.as_ref()).map_err(unsupported)?;
        }
        "RequestMirror" => {
            let written = filter.request_mirror.as_ref().ok_or_else(missing)?;
            if action.mirror.is_some() {
                return Err(unsupported("a rule can have one RequestMirror".to_owned()));
            }
            let share = share(written).map_err(unsupported)?;
            match references.resolve(&written.backend_ref, route) {
                Ok(name) => action.mirror = Some((name, share)),
                Err(problem) => unresolved.push(problem),
            }
        }
        other => return Err(unsupported(format!("filter of type {other:?}"))),
    }
    Ok(())
}

fn header_edits(written: &HeaderModifier) -> Result<HeaderEdits, String> {
    let pairs = |headers: &[super::objects::Header]| {
        let pair =
            |it: &super::objects::Header| Ok((header_name(&it.name)?, header_value(&it.value)?));
        headers.iter().map(pair).collect::<Result<Vec<_>, String>>()
    };
    let remove = written.remove.iter().map(|name| header_name(name));
    Ok(HeaderEdits {
        remove: remove.collect::<Result<_, _>>()?,
        set: pairs(&written.set)?,
        add: pairs(&written.add)?,
    })
}

fn redirect(written: &RequestRedirect, listener: (&'static str, u16)) -> Result<Redirect, String> {
    let scheme = match written.scheme.as_deref() {
        None => None,
        Some("http") => Some("http"),
        Some("https") => Some("https"),
        Some(other) => return Err(format!("redirect to the scheme {other:?}")),
    };
    let status = match written.status_code.unwrap_or(302) {
        code @ (301 | 302 | 303 | 307 | 308) => StatusCode::from_u16(code),
        code => return Err(format!("redirect with the status {code}")),
    };
    let port = written.port.map(u16::try_from).transpose();
    Ok(Redirect {
        scheme,
        host: written.hostname.clone(),
        port: port.map_err(|_| "a port is at most 65535".to_owned())?,
        listener,
        status: status.map_err(|error| error.to_string())?,
    })
}

fn path_change(written: Option<&PathModifier>) -> Result<Option<PathChange>, String> {
    let Some(written) = written else {
        return Ok(None);
    };
    let change = match (
        written.r#type.as_str(),
        &written.replace_full_path,
        &written.replace_prefix_match,
    ) {
        ("ReplaceFullPath", Some(path), _) => PathChange::Whole(path.clone()),
        ("ReplacePrefixMatch", _, Some(prefix)) => PathChange::Prefix(prefix.clone()),
        (other, ..) => return Err(format!("path modifier of type {other:?}")),
    };
    let (PathChange::Whole(path) | PathChange::Prefix(path)) = &change;
    if !path.is_empty() {
        PathPattern::prefix(path)?;
    }
    Ok(Some(change))
}

/// The share of requests that are mirrored, in millionths.
fn share(written: &RequestMirror) -> Result<u32, String> {
    let (numerator, denominator) = match (written.percent, &written.fraction) {
        (Some(percent), _) => (percent, 100),
        (None, Some(fraction)) => (fraction.numerator, fraction.denominator.unwrap_or(100)),
        (None, None) => return Ok(ALL),
    };
    if denominator == 0 || numerator > denominator {
        return Err("the share of a RequestMirror is more than 1".to_owned());
    }
    let share = u64::from(numerator) * u64::from(ALL) / u64::from(denominator);
    u32::try_from(share).map_err(|error| error.to_string())
}

// --- time limits ---

/// The limits of the request and of an attempt.
fn timeouts(rule: &Rule) -> Result<(Option<Duration>, Option<Duration>), String> {
    let parse = |text: &Option<String>| text.as_deref().map(duration).transpose();
    let total = parse(&rule.timeouts.request)?;
    let attempt = parse(&rule.timeouts.backend_request)?;
    Ok((
        total.filter(|total| !total.is_zero()),
        attempt.map(|limit| if limit.is_zero() { UNLIMITED } else { limit }),
    ))
}

/// A time in the format of the Gateway API (GEP-2257): up to four times a number of at most five digits
/// and one of the units h, m, s and ms.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let error = || format!("{text:?} is not a duration such as 1h, 10s or 500ms");
    let (mut rest, mut total) = (text, Duration::ZERO);
    for _ in 0..4 {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, unit) = rest.split_at(digits);
        let end = unit
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(unit.len());
        let (unit, next) = unit.split_at(end);
        let number: u64 = number.parse().map_err(|_| error())?;
        total += match unit {
            _ if digits > 5 => return Err(error()),
            "h" => Duration::from_secs(number * 3600),
            "m" => Duration::from_secs(number * 60),
            "s" => Duration::from_secs(number),
            "ms" => Duration::from_millis(number),
            _ => return Err(error()),
        };
        rest = next;
        if rest.is_empty() {
            return Ok(total);
        }
    }
    Err(error())
}

// --- references ---

impl<'a> References<'a> {
    pub(super) fn new(objects: &'a Objects, settings: &'a Settings) -> Self {
        let services = objects.services.iter().map(|service| {
            let metadata = &service.metadata;
            (
                (metadata.namespace.as_str(), metadata.name.as_str()),
                service,
            )
        });
        Self {
            services: services.collect(),
            objects,
            settings,
        }
    }

    /// The name under which discovery finds a backend.
    fn resolve(&self, backend: &BackendRef, route: &HttpRoute) -> Result<ServiceName, Problem> {
        let (group, kind) = (
            backend.group.as_deref().unwrap_or_default(),
            backend.kind.as_deref().unwrap_or("Service"),
        );
        let own = route.metadata.namespace.as_str();
        let namespace = backend.namespace.as_deref().unwrap_or(own);
        let name = backend.name.as_str();
        if (group, kind) != ("", "Service") {
            let message = format!("backend {name} is a {kind}; only Services are supported");
            return Err(Problem::new("InvalidKind", message));
        }
        let (from, to) = (("HTTPRoute", own), ("Service", namespace, name));
        if namespace != own && !self.objects.is_granted(from, to) {
            let message =
                format!("no ReferenceGrant in namespace {namespace} allows Service {name}");
            return Err(Problem::new("RefNotPermitted", message));
        }
        let not_found = |message| Problem::new("BackendNotFound", message);
        let service = self.services.get(&(namespace, name));
        let service =
            service.ok_or_else(|| not_found(format!("Service {namespace}/{name} not found")))?;
        if service.spec.r#type.as_deref() == Some("ExternalName")
            && !self.settings.allows_external_names
        {
            let message = format!("Service {namespace}/{name} is of type ExternalName");
            return Err(Problem::new("UnsupportedServiceType", message));
        }
        let number = backend.port.unwrap_or_default();
        let mut ports = service.spec.ports.iter().filter(|port| port.port == number);
        let Some(mut port) = ports.next() else {
            let message = format!("Service {namespace}/{name} has no port {number}");
            return Err(not_found(message));
        };
        let is_tcp = |port: &super::objects::ServicePort| {
            port.protocol
                .as_deref()
                .is_none_or(|protocol| protocol == "TCP")
        };
        if !is_tcp(port) {
            port = ports.find(|port| is_tcp(port)).ok_or_else(|| {
                let message = format!("port {number} of Service {namespace}/{name} is not TCP");
                Problem::new("UnsupportedProtocol", message)
            })?;
        }
        let port = port.name.as_deref().filter(|name| !name.is_empty());
        let port = port.filter(|_| service.spec.ports.len() > 1);
        let mut found = match port {
            Some(port) => format!("{name}_{port}"),
            None => name.to_owned(),
        };
        if namespace != self.settings.namespace {
            found = format!("{found}.{namespace}");
        }
        ServiceName::new(&found).map_err(|error| not_found(error.to_string()))
    }
}
