//! Role-based access control by the Roles and RoleBindings in the store. ClusterRoles and groups are
//! not supported.

use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, Subject};
use serde_json::{Value, json};

use super::credentials::User;
use crate::kind::Kind;
use crate::store::Store;
use crate::store::object::Key;

const API_GROUP: &str = "rbac.authorization.k8s.io";
const API_VERSION: &str = "rbac.authorization.k8s.io/v1";

/// An action on objects of a namespace.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Action<'a> {
    pub verb: &'a str,
    pub group: &'a str,
    pub resource: &'a str,
    pub namespace: &'a str,
    /// Empty for all.
    pub name: &'a str,
}

/// Whether a user may perform an action.
pub(crate) fn allows(store: &Store, user: &User, action: Action<'_>) -> bool {
    let namespace = action.namespace;
    let bindings = store.objects(Kind::RoleBinding, namespace);
    let mut roles = bindings
        .filter_map(|it| it.parse::<RoleBinding>())
        .filter(|it| it.subjects.iter().flatten().any(|it| is_user(it, user)))
        .filter_map(|it| store.get(Kind::Role, &Key::new(namespace, &it.role_ref.name)))
        .filter_map(|it| it.parse::<Role>());
    user.is_admin() || roles.any(|it| it.rules.iter().flatten().any(|it| covers(it, action)))
}

/// A Role with these rules and the RoleBinding that gives it to a user.
pub(crate) fn grant(user: &str, namespace: &str, rules: &Value) -> [Value; 2] {
    let name = grant_name(user);
    let meta = json!({ "name": name, "namespace": namespace });
    [
        json!({ "apiVersion": API_VERSION, "kind": "Role", "metadata": meta, "rules": rules }),
        json!({
            "apiVersion": API_VERSION,
            "kind": "RoleBinding",
            "metadata": meta,
            "subjects": [{ "apiGroup": API_GROUP, "kind": "User", "name": user }],
            "roleRef": { "apiGroup": API_GROUP, "kind": "Role", "name": name },
        }),
    ]
}

/// The name of the Role and the RoleBinding that [`grant`] makes.
pub(crate) fn grant_name(user: &str) -> String {
    format!("granted-to-{}", user.replace(':', "-"))
}

fn is_user(subject: &Subject, user: &User) -> bool {
    match &*subject.kind {
        "User" => subject.name == user.name,
        "ServiceAccount" => {
            let account = subject.namespace.as_deref().zip(Some(&*subject.name));
            account.is_some() && account == user.service_account()
        }
        _ => false,
    }
}

fn covers(rule: &PolicyRule, action: Action<'_>) -> bool {
    let has = |values: &[String], value: &str| values.iter().any(|it| it == "*" || it == value);
    let has_some =
        |values: &Option<Vec<String>>, value| has(values.as_deref().unwrap_or(&[]), value);
    let names = rule.resource_names.as_deref().unwrap_or_default();
    has(&rule.verbs, action.verb)
        && has_some(&rule.api_groups, action.group)
        && has_some(&rule.resources, action.resource)
        && (names.is_empty() || names.iter().any(|it| it == action.name))
}
