//! Role-based access control, read from the roles and bindings in the store.

use serde_json::{Value, json};

use super::{AUTHENTICATED, MASTERS, SERVICE_ACCOUNT, User};
use crate::kinds::Kind;
use crate::store::{Key, State};

const RBAC: &str = "rbac.authorization.k8s.io";

/// What somebody wants to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Attributes<'a> {
    /// With objects.
    Resource {
        verb: &'a str,
        group: &'a str,
        /// `services`, or `services/status`.
        resource: &'a str,
        /// Empty means all.
        namespace: &'a str,
        /// Empty means all.
        name: &'a str,
    },
    /// With a path.
    Path { verb: &'a str, path: &'a str },
}

/// Whether a user may.
pub(crate) fn allows(state: &State, user: &User, wanted: Attributes<'_>) -> bool {
    if user.is_in(MASTERS) || is_open(user, wanted) {
        return true;
    }
    let namespace = match wanted {
        Attributes::Resource { namespace, .. } => namespace,
        Attributes::Path { .. } => "",
    };
    rules_of(state, user, namespace)
        .iter()
        .any(|rule| covers(rule, wanted))
}

/// The rules that hold for a user in a namespace; with an empty one, those that hold everywhere.
pub(crate) fn rules_of(state: &State, user: &User, namespace: &str) -> Vec<Value> {
    let mut rules = Vec::new();
    let mut collect = |binding: &Value, namespace: &str| {
        let role = &binding["roleRef"];
        let name = role["name"].as_str().unwrap_or_default();
        let (plural, namespace) = match role["kind"].as_str() {
            Some("ClusterRole") => ("clusterroles", ""),
            _ => ("roles", namespace),
        };
        let role = rbac(plural).and_then(|it| state.get(it, &Key::new(namespace, name)));
        if let Some(Value::Array(found)) = role.map(|it| it.value()["rules"].take()) {
            rules.extend(found);
        }
    };
    if let Some(kind) = rbac("clusterrolebindings") {
        for object in state.objects(kind, None) {
            let binding = object.value();
            if names(&binding, user, "") {
                collect(&binding, "");
            }
        }
    }
    if let Some(kind) = rbac("rolebindings").filter(|_| !namespace.is_empty()) {
        for object in state.objects(kind, Some(namespace)) {
            let binding = object.value();
            if names(&binding, user, namespace) {
                collect(&binding, namespace);
            }
        }
    }
    rules
}

fn rbac(plural: &str) -> Option<&'static Kind> {
    Kind::find(RBAC, "v1", plural)
}

/// Whether a binding is for this user.
fn names(binding: &Value, user: &User, namespace: &str) -> bool {
    let subjects = binding["subjects"].as_array().into_iter().flatten();
    subjects.into_iter().any(|subject| {
        let name = subject["name"].as_str().unwrap_or_default();
        match subject["kind"].as_str() {
            Some("User") => user.name == name,
            Some("Group") => user.is_in(name),
            Some("ServiceAccount") => {
                let of = subject["namespace"].as_str().unwrap_or(namespace);
                user.name
                    .strip_prefix(SERVICE_ACCOUNT)
                    .and_then(|it| it.split_once(':'))
                    == Some((of, name))
            }
            _ => false,
        }
    })
}

fn covers(rule: &Value, wanted: Attributes<'_>) -> bool {
    let has = |field: &str, value: &str| {
        let mut found = rule[field].as_array().into_iter().flatten();
        found.any(|it| it == "*" || it == value)
    };
    match wanted {
        Attributes::Resource {
            verb,
            group,
            resource,
            name,
            ..
        } => {
            let of_names = rule["resourceNames"].as_array();
            has("verbs", verb)
                && has("apiGroups", group)
                && has("resources", resource)
                && of_names.is_none_or(|it| it.is_empty() || it.iter().any(|it| it == name))
        }
        Attributes::Path { verb, path } => {
            let mut paths = rule["nonResourceURLs"].as_array().into_iter().flatten();
            has("verbs", verb)
                && paths.any(|it| match it.as_str().and_then(|it| it.strip_suffix('*')) {
                    Some(start) => path.starts_with(start),
                    None => it == path,
                })
        }
    }
}

/// What a cluster allows from its first day on: health and the version to all, discovery and
/// questions about one's own rights to those it knows.
fn is_open(user: &User, wanted: Attributes<'_>) -> bool {
    const PUBLIC: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];
    const DISCOVERY: [&str; 3] = ["/api", "/apis", "/openapi"];
    let is_below = |path: &str, roots: &[&str]| {
        roots.iter().any(|root| {
            path.strip_prefix(root)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    };
    match wanted {
        Attributes::Path { verb, path } => {
            verb == "get"
                && (is_below(path, &PUBLIC)
                    || (user.is_in(AUTHENTICATED) && is_below(path, &DISCOVERY)))
        }
        Attributes::Resource {
            verb,
            group,
            resource,
            ..
        } => {
            user.is_in(AUTHENTICATED)
                && verb == "create"
                && group == "authorization.k8s.io"
                && matches!(
                    resource,
                    "selfsubjectaccessreviews" | "selfsubjectrulesreviews"
                )
        }
    }
}

/// A role, or a cluster role without a namespace, and the binding that gives it to a user.
pub(crate) fn grant(user: &User, namespace: Option<&str>, rules: &Value) -> [Value; 2] {
    let name = grant_name(user);
    let (role, binding) = match namespace {
        Some(_) => ("Role", "RoleBinding"),
        None => ("ClusterRole", "ClusterRoleBinding"),
    };
    let mut meta = json!({ "name": name });
    if let Some(namespace) = namespace {
        meta["namespace"] = namespace.into();
    }
    let api_version = format!("{RBAC}/v1");
    [
        json!({ "apiVersion": api_version, "kind": role, "metadata": meta, "rules": rules }),
        json!({
            "apiVersion": api_version,
            "kind": binding,
            "metadata": meta,
            "subjects": [{ "apiGroup": RBAC, "kind": "User", "name": user.name }],
            "roleRef": { "apiGroup": RBAC, "kind": role, "name": name },
        }),
    ]
}

/// The name of a role that was made by [`grant`].
pub(crate) fn grant_name(user: &User) -> String {
    format!("granted-to-{}", user.name.replace(':', "-"))
}
