//! A request as the API server reads it: the verb and the objects.

use bytes::Bytes;
use http::Method;
use serde_json::Value;

use super::status::Status;
use crate::kind::Kind;
use crate::store::object::Key;

/// A request with its whole body.
#[derive(Debug)]
pub(crate) struct ApiRequest {
    pub method: Method,
    pub path: String,
    /// The query, without the `?`.
    pub query: String,
    /// The header `Accept`.
    pub accept: String,
    /// The header `Content-Type`.
    pub content_type: String,
    pub body: Bytes,
}

/// The target of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    Objects(Scope),
    /// Creates a SelfSubjectAccessReview.
    AccessReview,
    /// A path that is not served.
    Unknown,
}

/// The objects of one kind in a namespace or in all namespaces, or one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scope {
    pub kind: Kind,
    /// Empty for all namespaces, and for kinds that aren't in one.
    pub namespace: String,
    /// None for all.
    pub name: Option<String>,
    /// Whether only the status of the object is meant.
    pub is_status: bool,
}

impl Scope {
    /// Whether it has objects of several namespaces, which can only be read.
    fn is_across_namespaces(&self) -> bool {
        self.kind.is_namespaced() && self.namespace.is_empty()
    }

    /// The resource as roles name it, such as `httproutes` or `httproutes/status`.
    pub(crate) fn resource(&self) -> String {
        let plural = self.kind.plural();
        if self.is_status {
            format!("{plural}/status")
        } else {
            plural.to_owned()
        }
    }

    /// The key of the one object. Without a name, no object has this key.
    pub(crate) fn key(&self) -> Key {
        Key::new(&self.namespace, self.name.as_deref().unwrap_or_default())
    }
}

impl ApiRequest {
    pub(crate) fn target(&self) -> Target {
        const ACCESS_REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        if self.path == ACCESS_REVIEWS {
            return Target::AccessReview;
        }
        scope(&self.path).map_or(Target::Unknown, Target::Objects)
    }

    /// The verb, as roles name it; None if the method is not supported.
    pub(crate) fn verb(&self, scope: &Scope, is_watch: bool) -> Option<&'static str> {
        if scope.is_status {
            return (self.method == Method::PATCH).then_some("patch");
        }
        match (&self.method, scope.name.is_some()) {
            (&Method::GET, true) => Some("get"),
            (&Method::GET, false) if is_watch => Some("watch"),
            (&Method::GET, false) => Some("list"),
            (&Method::POST, false) if scope.is_across_namespaces() => None,
            (&Method::POST, false) => Some("create"),
            (&Method::PUT, true) => Some("update"),
            (&Method::DELETE, true) => Some("delete"),
            _ => None,
        }
    }

    /// Whether the client wants only the metadata of objects.
    pub(crate) fn wants_metadata(&self) -> bool {
        self.accept.contains("as=PartialObjectMetadata")
    }

    /// The body as JSON; null if there is none.
    pub(crate) fn json(&self) -> Result<Value, Status> {
        if self.body.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_slice(&self.body)
            .map_err(|error| Status::bad_request(format!("error decoding the body: {error}")))
    }
}

/// `/api/v1/namespaces/demo/services/web`, `/api/v1/services` and the like; None for paths that are
/// not served.
fn scope(path: &str) -> Option<Scope> {
    let parts: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
    let (api_version, rest) = match parts.as_slice() {
        ["api", "v1", rest @ ..] => ("v1".to_owned(), rest),
        ["apis", group, version, rest @ ..] => (format!("{group}/{version}"), rest),
        _ => return None,
    };
    let (rest, is_status) = match rest {
        [rest @ .., "status"] => (rest, true),
        rest => (rest, false),
    };
    let (namespace, plural, name) = match rest {
        ["namespaces", "", ..] => return None,
        ["namespaces", namespace, plural] => (*namespace, plural, None),
        ["namespaces", namespace, plural, name] => (*namespace, plural, Some(*name)),
        [plural] => ("", plural, None),
        [plural, name] => ("", plural, Some(*name)),
        _ => return None,
    };
    let kind = Kind::of_resource(&api_version, plural)?;
    let is_served = match (kind.is_namespaced(), namespace.is_empty()) {
        (true, true) => name.is_none(),
        (is_namespaced, is_everywhere) => is_namespaced != is_everywhere,
    };
    (is_served && (!is_status || name.is_some())).then(|| Scope {
        kind,
        namespace: namespace.to_owned(),
        name: name.map(str::to_owned),
        is_status,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_a_kind_a_namespace_and_an_object() {
        let slices = "/apis/discovery.k8s.io/v1/namespaces/demo/endpointslices";
        let services = "/api/v1/namespaces/demo/services";
        let web = "/api/v1/namespaces/demo/services/web";
        let roles = "/apis/rbac.authorization.k8s.io/v1/clusterroles";
        let role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/reader";
        for (path, kind, namespace, name) in [
            (services, Kind::Service, "demo", None),
            (web, Kind::Service, "demo", Some("web")),
            (slices, Kind::EndpointSlice, "demo", None),
            ("/api/v1/services", Kind::Service, "", None),
            ("/api/v1/namespaces/demo", Kind::Namespace, "", Some("demo")),
            (roles, Kind::ClusterRole, "", None),
            (role, Kind::ClusterRole, "", Some("reader")),
        ] {
            let expected = Scope {
                kind,
                namespace: namespace.to_owned(),
                name: name.map(str::to_owned),
                is_status: false,
            };
            assert_eq!(scope(path), Some(expected), "{path}");
        }
        let all = scope("/api/v1/services").unwrap();
        assert_eq!((all.namespace.as_str(), all.name), ("", None));
        let status = "/apis/gateway.networking.k8s.io/v1/namespaces/demo/httproutes/web/status";
        let status = scope(status).unwrap();
        assert!(status.kind == Kind::HttpRoute && status.resource() == "httproutes/status");
        for path in [
            "/api/v1",
            "/api/v1/services/web",
            "/api/v1/namespaces/demo/namespaces",
            "/api/v1/namespaces//services",
            "/apis/rbac.authorization.k8s.io/v1/namespaces/demo/clusterroles",
            "/apis/discovery.k8s.io/v1/namespaces/demo/services",
            "/version",
        ] {
            assert_eq!(scope(path), None, "{path}");
        }
    }
}
