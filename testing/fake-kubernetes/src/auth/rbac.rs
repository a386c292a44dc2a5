//! Role-based access control by the roles and bindings in the store. Groups and aggregated roles are not
//! supported.

use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use serde_json::{Value, json};

use super::credentials::User;
use crate::kind::Kind;
use crate::store::Store;
use crate::store::object::Key;

const API_GROUP: &str = "rbac.authorization.k8s.io";
const API_VERSION: &str = "rbac.authorization.k8s.io/v1";

/// An action on objects of a namespace. An empty `namespace` stands for all, and for objects without one.
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
    let is_user = |subjects: &Option<Vec<Subject>>| {
        let mut subjects = subjects.iter().flatten();
        subjects.any(|it| is_user(it, user))
    };
    let in_all = store.objects(Kind::ClusterRoleBinding, "");
    let in_all = in_all
        .filter_map(|it| it.parse::<ClusterRoleBinding>())
        .filter(|it| is_user(&it.subjects))
        .map(|it| it.role_ref);
    // Bindings of a namespace give nothing outside of it.
    let namespace = Some(action.namespace).filter(|it| !it.is_empty());
    let in_one = namespace.map(|it| store.objects(Kind::RoleBinding, it));
    let in_one = (in_one.into_iter().flatten())
        .filter_map(|it| it.parse::<RoleBinding>())
        .filter(|it| is_user(&it.subjects))
        .map(|it| it.role_ref);
    let mut rules = (in_all.chain(in_one)).flat_map(|it| rules_of(&it, store, action.namespace));
    user.is_admin() || rules.any(|it| covers(&it, action))
}

/// The rules of the role that a binding names.
fn rules_of(role: &RoleRef, store: &Store, namespace: &str) -> Vec<PolicyRule> {
    let rules = if role.kind == "ClusterRole" {
        let role = store.get(Kind::ClusterRole, &Key::new("", &role.name));
        role.and_then(|it| it.parse::<ClusterRole>()?.rules)
    } else {
        let role = store.get(Kind::Role, &Key::new(namespace, &role.name));
        role.and_then(|it| it.parse::<Role>()?.rules)
    };
    rules.unwrap_or_default()
}

/// A Role with these rules and the RoleBinding that gives it to a user; if `namespace` is empty, a
/// ClusterRole and its ClusterRoleBinding.
pub(crate) fn grant(user: &str, namespace: &str, rules: &Value) -> [Value; 2] {
    let name = grant_name(user);
    let mut meta = json!({ "name": name });
    let mut role = "ClusterRole";
    if !namespace.is_empty() {
        meta["namespace"] = namespace.into();
        role = "Role";
    }
    [
        json!({ "apiVersion": API_VERSION, "kind": role, "metadata": meta, "rules": rules }),
        json!({
            "apiVersion": API_VERSION,
            "kind": format!("{role}Binding"),
            "metadata": meta,
            "subjects": [{ "apiGroup": API_GROUP, "kind": "User", "name": user }],
            "roleRef": { "apiGroup": API_GROUP, "kind": role, "name": name },
        }),
    ]
}

/// The name of the role and the binding that [`grant`] makes.
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
