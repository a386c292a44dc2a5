//! A request as the API server reads it: the verb, what it is about, and the options in its query.

use std::collections::BTreeMap;

use bytes::Bytes;
use http::{HeaderMap, Method, header};

use super::Status;
use crate::kinds::Kind;
use crate::store::Key;

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/";

/// A whole request.
#[derive(Debug)]
pub(crate) struct Call {
    pub method: Method,
    pub path: String,
    pub query: Query,
    pub headers: HeaderMap,
    pub body: Bytes,
}

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Objects of one kind.
    Objects(Scope),
    /// A question about rights, by its plural.
    Review(String),
    /// Whatever else lies at the path.
    Path,
}

/// Which objects: all, those of a namespace, or one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    pub kind: &'static Kind,
    pub namespace: Option<String>,
    pub name: Option<String>,
    pub subresource: Option<String>,
}

impl Scope {
    /// The key of the one object that is meant, if there is but one.
    pub(crate) fn key(&self) -> Option<Key> {
        let name = self.name.as_deref()?;
        Some(Key::new(
            self.namespace.as_deref().unwrap_or_default(),
            name,
        ))
    }
}

impl Call {
    /// What it is about.
    pub(crate) fn target(&self) -> Target {
        if let Some(review) = self.path.strip_prefix(REVIEWS) {
            return Target::Review(review.to_owned());
        }
        match scope(&self.path) {
            Some(scope) => Target::Objects(scope),
            None => Target::Path,
        }
    }

    /// What is to be done with objects, as rules name it.
    pub(crate) fn verb(&self, scope: &Scope) -> Option<&'static str> {
        let single = scope.name.is_some();
        Some(match self.method {
            Method::GET | Method::HEAD if single => "get",
            Method::GET | Method::HEAD if self.query.is_set("watch") => "watch",
            Method::GET | Method::HEAD => "list",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if single => "delete",
            Method::DELETE => "deletecollection",
            _ => return None,
        })
    }

    /// The form of the answer that the client likes best, of those that there are.
    pub(crate) fn form(&self) -> Result<Form, Status> {
        let Some(accept) = self.headers.get(header::ACCEPT) else {
            return Ok(Form::Plain);
        };
        let accept = accept.to_str().unwrap_or_default();
        let mut forms = accept.split(',').filter_map(Form::of);
        forms.next().ok_or_else(Status::not_acceptable)
    }

    /// The media type of the body, without parameters.
    pub(crate) fn content_type(&self) -> &str {
        let value = self.headers.get(header::CONTENT_TYPE);
        let value = value.and_then(|it| it.to_str().ok()).unwrap_or_default();
        value.split(';').next().unwrap_or_default().trim()
    }
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// The objects themselves.
    Plain,
    /// A table for people.
    Table,
    /// Their metadata alone.
    Metadata,
    /// All groups and resources in one, for discovery.
    Discovery,
}

impl Form {
    fn of(range: &str) -> Option<Self> {
        let mut parts = range.split(';').map(str::trim);
        if !matches!(parts.next()?, "application/json" | "application/*" | "*/*") {
            return None;
        }
        let parameters: BTreeMap<_, _> = parts.filter_map(|it| it.split_once('=')).collect();
        match (parameters.get("as").copied(), parameters.get("v").copied()) {
            (None, _) => Some(Self::Plain),
            (Some("Table"), Some("v1")) => Some(Self::Table),
            (Some("PartialObjectMetadata" | "PartialObjectMetadataList"), Some("v1")) => {
                Some(Self::Metadata)
            }
            (Some("APIGroupDiscoveryList"), Some("v2")) => Some(Self::Discovery),
            _ => None,
        }
    }
}

/// The options in a query.
#[derive(Debug, Default)]
pub(crate) struct Query {
    text: String,
    options: BTreeMap<String, String>,
}

impl Query {
    pub(crate) fn parse(text: &str) -> Self {
        let pairs = url::form_urlencoded::parse(text.as_bytes());
        Self {
            text: text.to_owned(),
            options: pairs.into_owned().collect(),
        }
    }

    /// It as it was sent.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The value of an option; empty if it isn't there.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.options.get(name).map_or("", String::as_str)
    }

    pub(crate) fn is_set(&self, name: &str) -> bool {
        matches!(self.get(name), "true" | "1")
    }

    /// A number; None if it isn't there.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Status> {
        match self.get(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                Status::bad_request(format!(
                    "strconv.ParseUint: parsing {text:?}: invalid syntax"
                ))
            }),
        }
    }
}

/// `/api/v1/namespaces/demo/services/web/status` and the like.
fn scope(path: &str) -> Option<Scope> {
    let mut parts: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    if parts.last() == Some(&"") {
        parts.pop();
    }
    let (group, version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] => ("", *version, rest),
        ["apis", group, version, rest @ ..] => (*group, *version, rest),
        _ => return None,
    };
    let owned = |text: &str| Some(text.to_owned());
    let (namespace, plural, rest) = match rest {
        ["namespaces", namespace, plural, rest @ ..]
            if !matches!(*plural, "status" | "finalize") =>
        {
            (owned(namespace), *plural, rest)
        }
        [plural, rest @ ..] => (None, *plural, rest),
        [] => return None,
    };
    let kind = Kind::find(group, version, plural)?;
    if namespace.is_some() && !kind.is_namespaced {
        return None;
    }
    let (name, subresource) = match rest {
        [] => (None, None),
        [name] => (owned(name), None),
        [name, subresource] => (owned(name), owned(subresource)),
        _ => return None,
    };
    if name.is_some() && kind.is_namespaced && namespace.is_none() {
        return None;
    }
    Some(Scope {
        kind,
        namespace,
        name,
        subresource,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(path: &str) -> Option<String> {
        let scope = scope(path)?;
        Some(format!(
            "{} {} {} {}",
            scope.kind.plural,
            scope.namespace.unwrap_or_default(),
            scope.name.unwrap_or_default(),
            scope.subresource.unwrap_or_default()
        ))
    }

    #[test]
    fn reads_paths() {
        for (path, expected) in [
            ("/api/v1/services", "services   "),
            ("/api/v1/namespaces", "namespaces   "),
            ("/api/v1/namespaces/demo", "namespaces  demo "),
            ("/api/v1/namespaces/demo/status", "namespaces  demo status"),
            ("/api/v1/namespaces/demo/services/web", "services demo web "),
            (
                "/apis/discovery.k8s.io/v1/namespaces/demo/endpointslices",
                "endpointslices demo  ",
            ),
        ] {
            assert_eq!(shown(path).as_deref(), Some(expected), "{path}");
        }
        for path in [
            "/api/v1",
            "/api/v1/services/web",
            "/apis/discovery.k8s.io/v1/services",
            "/version",
        ] {
            assert_eq!(shown(path), None, "{path}");
        }
    }

    #[test]
    fn takes_the_first_form_that_it_can_give() {
        let form = |accept: &str| accept.split(',').find_map(Form::of);
        assert_eq!(
            form("application/json;as=Table;v=v1;g=meta.k8s.io,application/json"),
            Some(Form::Table)
        );
        assert_eq!(
            form("application/vnd.kubernetes.protobuf,application/json"),
            Some(Form::Plain)
        );
        assert_eq!(form("application/vnd.kubernetes.protobuf"), None);
    }
}
