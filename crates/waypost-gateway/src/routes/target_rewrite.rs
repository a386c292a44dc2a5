//! How a route changes the path of a request before a service sees it.

use http::Uri;
use http::uri::PathAndQuery;

use super::pattern::{PathPattern, Segment};

/// How the path is changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Rewrite {
    Keep,
    /// The prefix is replaced.
    Prefix(String),
    /// The prefix is replaced, and responses are left as they are.
    MatchedPrefix {
        from: String,
        to: String,
    },
    /// The path is replaced.
    Whole(Vec<Segment>),
}

impl Rewrite {
    /// Replaces the path by a template. Its parameters get the values that the route's pattern finds.
    pub(super) fn whole(template: &str) -> Self {
        match PathPattern::template(template) {
            Ok(PathPattern::Template(segments)) => Self::Whole(segments),
            _ => Self::Whole(Vec::new()),
        }
    }

    /// The path that the service sees instead of the prefix.
    pub(super) fn replacement(&self) -> &str {
        match self {
            Self::Prefix(to) => to,
            Self::Keep | Self::MatchedPrefix { .. } | Self::Whole(_) => "",
        }
    }

    /// The target of a request as the service sees it. `prefix` is the one that [`Rewrite::Prefix`]
    /// replaces, and `pattern` the route's.
    pub(super) fn apply(&self, uri: &Uri, prefix: &str, pattern: &PathPattern) -> PathAndQuery {
        let whole = uri.path_and_query();
        let target = whole.map_or("/", PathAndQuery::as_str);
        let rewritten = match self {
            Self::Keep => return whole.cloned().unwrap_or(PathAndQuery::from_static("/")),
            Self::Prefix(to) => {
                let rest = target.strip_prefix(prefix).unwrap_or(target);
                if to.is_empty() && rest.starts_with('/') {
                    rest.parse()
                } else if rest.is_empty() || rest.starts_with('?') {
                    format!("{to}/{rest}").parse()
                } else {
                    format!("{to}{rest}").parse()
                }
            }
            Self::MatchedPrefix { from, to } => with_prefix(uri, from, to).parse(),
            Self::Whole(segments) => {
                let values = pattern.parameters(uri.path());
                let query = uri.query().map(|query| format!("?{query}"));
                let path = fill(segments, &values);
                format!("{path}{}", query.unwrap_or_default()).parse()
            }
        };
        // Parts of a valid target are valid.
        rewritten.unwrap_or(PathAndQuery::from_static("/"))
    }
}

fn fill(segments: &[Segment], values: &[(&str, &str)]) -> String {
    let mut path = String::new();
    for segment in segments {
        path.push('/');
        match segment {
            Segment::Literal(text) => path.push_str(text),
            Segment::Parameter(name) => {
                let value = values.iter().find(|(known, _)| known == name);
                path.push_str(value.map_or("", |(_, value)| value));
            }
        }
    }
    if path.is_empty() { "/".into() } else { path }
}

/// The path of a request with the prefix replaced, as in the table of the Gateway API's
/// `HTTPPathModifier`.
fn with_prefix(uri: &Uri, from: &str, to: &str) -> String {
    let rest = uri.path().strip_prefix(from).unwrap_or(uri.path());
    let path = format!("{to}{rest}");
    let path = if path.is_empty() { "/" } else { &path };
    match uri.query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    }
}
