//! The patterns of hosts and paths that a route may have.

use std::borrow::Cow;
use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, Method};

use super::expression::Expression;
use crate::target::has_dot_segment;

/// The hosts that a route matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HostPattern {
    /// This host.
    Exact(String),
    /// All hosts below this one, such as `.shop.example`.
    Below(String),
}

impl HostPattern {
    /// Parses a host name, or `*.` and a host name.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let (name, is_wildcard) = match text.strip_prefix("*.") {
            Some(name) => (name, true),
            None => (text, false),
        };
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        let is_address = name.starts_with('[') && name.ends_with(']');
        if name.is_empty() || !(is_address || name.chars().all(is_plain)) {
            return Err(format!(
                "host {text:?}: expected a name without a port, such as shop.example or *.shop.example"
            ));
        }
        let name = name.to_ascii_lowercase();
        Ok(if is_wildcard {
            Self::Below(format!(".{name}"))
        } else {
            Self::Exact(name)
        })
    }

    /// Whether a host, in lower case and without a port, matches.
    pub(crate) fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => name == host,
            Self::Below(end) => host.len() > end.len() && host.ends_with(end.as_str()),
        }
    }

    /// The pattern of the hosts that match both; `None` if there are none.
    pub(crate) fn intersection(&self, other: &Self) -> Option<Self> {
        match (self, other) {
            (Self::Exact(name), _) => other.matches(name).then(|| self.clone()),
            (_, Self::Exact(name)) => self.matches(name).then(|| other.clone()),
            (Self::Below(one), Self::Below(two)) if one.ends_with(two.as_str()) => {
                Some(self.clone())
            }
            (Self::Below(one), Self::Below(two)) => {
                two.ends_with(one.as_str()).then(|| other.clone())
            }
        }
    }

    /// The more specific of two patterns has the greater value.
    pub(crate) fn rank(&self) -> (bool, usize) {
        match self {
            Self::Exact(name) => (true, name.len()),
            Self::Below(end) => (false, end.len()),
        }
    }
}

impl fmt::Display for HostPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Below(end) => write!(f, "*{end}"),
        }
    }
}

/// The paths that a route matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PathPattern {
    /// This path and all paths below it. Stored without a slash at the end, so `""` means all.
    Prefix(String),
    /// This path only.
    Exact(String),
    /// A path with these segments.
    Template(Vec<Segment>),
    /// A path that this expression matches as a whole.
    Expression(Expression),
}

/// A segment of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Segment {
    /// This text.
    Literal(String),
    /// Any text. The rewritten path can contain it.
    Parameter(String),
}

impl PathPattern {
    /// # Errors
    /// What is wrong.
    pub(crate) fn prefix(text: &str) -> Result<Self, String> {
        check_path(text)?;
        Ok(Self::Prefix(text.trim_end_matches('/').to_owned()))
    }

    /// # Errors
    /// What is wrong.
    pub(crate) fn exact(text: &str) -> Result<Self, String> {
        check_path(text)?;
        Ok(Self::Exact(text.to_owned()))
    }

    /// Parses a path such as `/users/{id}/orders`.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn template(text: &str) -> Result<Self, String> {
        let mut segments = Vec::new();
        let path = text.strip_prefix('/').ok_or_else(|| no_slash(text))?;
        for segment in path.split('/') {
            let name = segment
                .strip_prefix('{')
                .and_then(|rest| rest.strip_suffix('}'));
            let is_name = |name: &str| {
                !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            };
            segments.push(match name {
                Some(name) if is_name(name) => Segment::Parameter(name.to_owned()),
                None if !segment.contains(['{', '}']) => {
                    check_path(&format!("/{segment}"))?;
                    Segment::Literal(segment.to_owned())
                }
                _ => {
                    return Err(format!(
                        "template {text:?}: {segment:?} is neither literal text nor a {{name}}"
                    ));
                }
            });
        }
        Ok(Self::Template(segments))
    }

    pub(crate) fn matches(&self, path: &str) -> bool {
        match self {
            Self::Prefix(prefix) => path
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/')),
            Self::Exact(exact) => exact == path,
            Self::Template(segments) => {
                let mut found = path.strip_prefix('/').unwrap_or(path).split('/');
                segments
                    .iter()
                    .all(|segment| match (segment, found.next()) {
                        (Segment::Literal(text), Some(found)) => text == found,
                        (Segment::Parameter(_), Some(found)) => !found.is_empty(),
                        (_, None) => false,
                    })
                    && found.next().is_none()
            }
            Self::Expression(expression) => expression.matches(path),
        }
    }

    /// The pattern with all literals in lower case.
    pub(crate) fn lowercase(&self) -> Self {
        match self {
            Self::Prefix(path) => Self::Prefix(path.to_ascii_lowercase()),
            Self::Exact(path) => Self::Exact(path.to_ascii_lowercase()),
            Self::Template(segments) => {
                let segments = segments.iter().map(|segment| match segment {
                    Segment::Literal(text) => Segment::Literal(text.to_ascii_lowercase()),
                    Segment::Parameter(name) => Segment::Parameter(name.clone()),
                });
                Self::Template(segments.collect())
            }
            Self::Expression(_) => self.clone(),
        }
    }

    /// The names and values of a template's parameters in a path that it matches.
    pub(crate) fn parameters<'a>(&'a self, path: &'a str) -> Vec<(&'a str, &'a str)> {
        let Self::Template(segments) = self else {
            return Vec::new();
        };
        let found = path.strip_prefix('/').unwrap_or(path).split('/');
        let pairs = segments.iter().zip(found);
        pairs
            .filter_map(|(segment, value)| match segment {
                Segment::Parameter(name) => Some((name.as_str(), value)),
                Segment::Literal(_) => None,
            })
            .collect()
    }

    /// The first segment, if it is a literal.
    pub(crate) fn first_segment(&self) -> Option<&str> {
        let path = match self {
            Self::Prefix(path) | Self::Exact(path) => path,
            Self::Template(segments) => {
                return match segments.first() {
                    Some(Segment::Literal(text)) => Some(text),
                    _ => None,
                };
            }
            Self::Expression(_) => return None,
        };
        let first = path.strip_prefix('/').unwrap_or(path).split('/').next();
        first.filter(|first| !first.is_empty())
    }

    /// Whether all paths match.
    pub(crate) fn is_everything(&self) -> bool {
        matches!(self, Self::Prefix(prefix) if prefix.is_empty())
    }

    /// The more specific of two patterns has the greater value: an exact path, then a template by its
    /// literal segments or an expression by its length, then the longer prefix.
    pub(crate) fn rank(&self) -> (u8, usize) {
        match self {
            Self::Exact(path) => (2, path.len()),
            Self::Template(segments) => {
                let is_literal = |segment: &&Segment| matches!(segment, Segment::Literal(_));
                (1, segments.iter().filter(is_literal).count())
            }
            Self::Expression(expression) => (1, expression.as_str().len()),
            Self::Prefix(prefix) => (0, prefix.len()),
        }
    }
}

impl fmt::Display for PathPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prefix(prefix) => write!(f, "{prefix}/"),
            Self::Exact(path) => f.write_str(path),
            Self::Expression(expression) => write!(f, "~{}", expression.as_str()),
            Self::Template(segments) => segments.iter().try_for_each(|segment| match segment {
                Segment::Literal(text) => write!(f, "/{text}"),
                Segment::Parameter(name) => write!(f, "/{{{name}}}"),
            }),
        }
    }
}

fn check_path(text: &str) -> Result<(), String> {
    if !text.starts_with('/') {
        return Err(no_slash(text));
    }
    let is_allowed = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'?' | b'#');
    if !text.bytes().all(is_allowed) || has_dot_segment(text) {
        return Err(format!(
            "path {text:?}: a path has no query, no dot segments, and other characters as %XX"
        ));
    }
    if decode_unreserved(text).is_some() {
        return Err(format!(
            "path {text:?}: write letters, digits and -._~ as they are, not as %XX"
        ));
    }
    Ok(())
}

fn no_slash(text: &str) -> String {
    format!("path {text:?} must begin with a slash")
}

/// The path with `%XX` replaced where it stands for a character that needs no encoding (RFC 3986,
/// section 6.2.2.2). `None` if there is nothing to replace.
///
/// Without this, `/%61dmin` would not match a route for `/admin`, but the service would treat it as
/// `/admin`.
pub(crate) fn decode_unreserved(path: &str) -> Option<String> {
    let mut rest = Some(path).filter(|path| path.contains('%'))?;
    let mut decoded = String::with_capacity(path.len());
    let mut is_changed = false;
    while let Some(at) = rest.find('%') {
        let (before, encoded) = rest.split_at(at);
        decoded.push_str(before);
        let byte = encoded
            .get(1..3)
            .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        let is_unreserved =
            |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        match byte.filter(is_unreserved) {
            Some(byte) => {
                decoded.push(char::from(byte));
                is_changed = true;
                rest = encoded.get(3..).unwrap_or_default();
            }
            None => {
                decoded.push('%');
                rest = encoded.get(1..).unwrap_or_default();
            }
        }
    }
    decoded.push_str(rest);
    is_changed.then_some(decoded)
}

/// The conditions of a route other than host and path.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Conditions {
    /// The methods; empty for all.
    pub(crate) methods: Vec<Method>,
    /// Headers that must have these values.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// Headers whose values must match.
    pub(crate) header_expressions: Vec<(HeaderName, Expression)>,
    /// Query parameters whose first values must match.
    pub(crate) query: Vec<(String, ValuePattern)>,
}

/// A pattern of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ValuePattern {
    Exact(String),
    Expression(Expression),
}

impl ValuePattern {
    fn matches(&self, value: &str) -> bool {
        match self {
            Self::Exact(exact) => exact == value,
            Self::Expression(expression) => expression.matches(value),
        }
    }
}

impl Conditions {
    pub(crate) fn hold(&self, method: &Method, headers: &HeaderMap, query: Option<&str>) -> bool {
        let has_method = self.methods.is_empty() || self.methods.contains(method);
        has_method
            && self
                .headers
                .iter()
                .all(|(name, value)| headers.get_all(name).iter().any(|found| found == value))
            && self.header_expressions.iter().all(|(name, expression)| {
                let mut values = headers.get_all(name).iter();
                values.any(|value| value.to_str().is_ok_and(|value| expression.matches(value)))
            })
            && self.query.iter().all(|(name, pattern)| {
                let mut parameters = form_urlencoded::parse(query.unwrap_or_default().as_bytes());
                let first = parameters.find(|(found, _)| found == name);
                first.is_some_and(|(_, value)| pattern.matches(&value))
            })
    }

    /// The stricter of two conditions has the greater value.
    pub(crate) fn rank(&self) -> (bool, usize, usize) {
        let headers = self.headers.len() + self.header_expressions.len();
        (!self.methods.is_empty(), headers, self.query.len())
    }
}

/// A host as patterns compare it: in lower case, without port.
pub(crate) fn bare_host(authority: &str) -> Cow<'_, str> {
    let name = match authority.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => name,
        _ => authority,
    };
    lowercase(name.strip_suffix('.').unwrap_or(name))
}

/// The text in lower case. It is not copied if it is in lower case already, as most are.
pub(super) fn lowercase(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_match_regardless_of_case_and_port() {
        let exact = HostPattern::parse("Shop.Example").unwrap();
        let below = HostPattern::parse("*.shop.example").unwrap();
        for (host, is_exact, is_below) in [
            ("SHOP.example:8000", true, false),
            ("shop.example.", true, false),
            ("a.b.shop.example", false, true),
            ("xshop.example", false, false),
            (".shop.example", false, false),
        ] {
            let host = bare_host(host);
            assert_eq!(exact.matches(&host), is_exact, "{host}");
            assert_eq!(below.matches(&host), is_below, "{host}");
        }
        assert_eq!(bare_host("[::1]:80"), "[::1]");
        assert_eq!(bare_host("[::1]"), "[::1]");
        for bad in ["", "*", "a b", "shop.example:80", "*.*.a"] {
            assert!(HostPattern::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn prefixes_end_at_segments_and_templates_count_them() {
        let prefix = PathPattern::prefix("/shop/").unwrap();
        let template = PathPattern::template("/users/{id}/orders").unwrap();
        for (path, matches) in [("/shop", true), ("/shop/x", true), ("/shopping", false)] {
            assert_eq!(prefix.matches(path), matches, "{path}");
        }
        for (path, matches) in [
            ("/users/7/orders", true),
            ("/users//orders", false),
            ("/users/7/orders/1", false),
            ("/users/7", false),
        ] {
            assert_eq!(template.matches(path), matches, "{path}");
        }
        assert_eq!(template.parameters("/users/7/orders"), [("id", "7")]);
        assert!(PathPattern::prefix("/").unwrap().matches("/anything"));
        for bad in ["shop", "/a?b", "/a/../b", "/%61", "/a b"] {
            assert!(PathPattern::prefix(bad).is_err(), "{bad:?}");
        }
        for bad in ["/{}", "/{a-b}", "/x{a}", "users"] {
            assert!(PathPattern::template(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_characters_that_need_no_encoding_are_decoded() {
        for (path, decoded) in [
            ("/%61dmin", Some("/admin")),
            ("/%2e%2E/x", Some("/../x")),
            ("/a%2Fb%20c", None),
            ("/100%", None),
            ("/%", None),
            ("/%6", None),
            ("/%zz%41", Some("/%zzA")),
            ("/plain", None),
        ] {
            assert_eq!(decode_unreserved(path).as_deref(), decoded, "{path}");
        }
    }

    #[test]
    fn all_conditions_have_to_hold() {
        let expression = |text| Expression::parse(text).unwrap();
        let header = HeaderName::from_static;
        let exact = |text: &str| ValuePattern::Exact(text.into());
        let conditions = Conditions {
            methods: vec![Method::GET],
            headers: vec![(header("x-a"), HeaderValue::from_static("1"))],
            header_expressions: vec![(header("x-b"), expression("[0-9]+"))],
            query: vec![
                ("c".into(), exact("2")),
                ("d".into(), ValuePattern::Expression(expression("[a-z]+"))),
            ],
        };
        let headers = |a: &'static str, b: &'static str| {
            let mut headers = HeaderMap::new();
            headers.append("x-a", HeaderValue::from_static("0"));
            headers.append("x-a", HeaderValue::from_static(a));
            headers.append("x-b", HeaderValue::from_static("-"));
            headers.append("x-b", HeaderValue::from_static(b));
            headers
        };
        for (method, [a, b], query, expected) in [
            (Method::GET, ["1", "77"], "c=2&d=x", true),
            (Method::GET, ["1", "77"], "d=x&c=2&c=3", true),
            (Method::PUT, ["1", "77"], "c=2&d=x", false),
            (Method::GET, ["2", "77"], "c=2&d=x", false),
            (Method::GET, ["1", "7x"], "c=2&d=x", false),
            (Method::GET, ["1", "77"], "c=3&c=2&d=x", false),
            (Method::GET, ["1", "77"], "c=2&d=7", false),
            (Method::GET, ["1", "77"], "c=2", false),
        ] {
            let found = conditions.hold(&method, &headers(a, b), Some(query));
            assert_eq!(found, expected, "{method} {a} {b} {query}");
        }
        assert_eq!(conditions.rank(), (true, 2, 2));
        let none = Conditions::default();
        assert!(none.hold(&Method::PUT, &HeaderMap::new(), None));
        assert_eq!(none.rank(), (false, 0, 0));
    }

    #[test]
    fn the_first_segment_of_a_pattern_is_known_if_it_is_literal() {
        for (pattern, segment, is_everything) in [
            (PathPattern::prefix("/shop/cart"), Some("shop"), false),
            (PathPattern::prefix("/"), None, true),
            (Ok(PathPattern::Exact("/shop".into())), Some("shop"), false),
            (Ok(PathPattern::Exact("/".into())), None, false),
            (PathPattern::template("/shop/{id}"), Some("shop"), false),
            (PathPattern::template("/{id}/shop"), None, false),
        ] {
            let pattern = pattern.unwrap();
            assert_eq!(pattern.first_segment(), segment, "{pattern:?}");
            assert_eq!(pattern.is_everything(), is_everything, "{pattern:?}");
        }
    }
}
