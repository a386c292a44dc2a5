//! The permissions that this provider needs, and what to apply when they are missing.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::try_join_all;
use http::Method;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;
use waypost_core::ProviderErrorKind;

use crate::client::ApiClient;
use crate::error::{RequestError, denied_user};
use crate::namespaces::Namespaces;

/// A Role or a ClusterRole that this provider may need.
#[derive(Debug)]
pub(crate) struct Role {
    /// The first part of the suggested name.
    name: &'static str,
    /// What it is needed for, for error messages.
    purpose: &'static str,
    rules: [PolicyRule; 2],
}

#[derive(Debug)]
struct PolicyRule {
    api_group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
}

/// The role for finding services.
pub(crate) const DISCOVERY: Role = Role {
    name: "waypost-discovery",
    purpose: "find services",
    rules: [
        PolicyRule {
            api_group: "",
            resource: "services",
            verbs: &["list", "watch"],
        },
        PolicyRule {
            api_group: "discovery.k8s.io",
            resource: "endpointslices",
            verbs: &["list", "watch"],
        },
    ],
};

/// The role for registering instances that run outside the cluster.
pub(crate) const REGISTRATION: Role = Role {
    name: "waypost-registration",
    purpose: "register instances",
    rules: [
        PolicyRule {
            api_group: "",
            resource: "services",
            verbs: &["get", "create", "delete"],
        },
        PolicyRule {
            api_group: "discovery.k8s.io",
            resource: "endpointslices",
            verbs: &["get", "list", "create", "update", "delete"],
        },
    ],
};

/// The permissions that an identity lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MissingPermissions {
    /// The missing permissions, each as `verb resource`, such as `watch services`.
    pub permissions: Vec<String>,
    /// The Role and RoleBinding to apply, as YAML; for all namespaces a ClusterRole and a
    /// ClusterRoleBinding.
    pub manifest: String,
}

/// Adds the missing permissions, which it queries from the API server, and the YAML that grants them to
/// "access denied" errors.
pub(crate) struct RbacAdvisor {
    client: Arc<ApiClient>,
    cache: Mutex<HashMap<CacheKey, CachedAdvice>>,
}

/// Where the role is needed, and its name.
type CacheKey = (Namespaces, &'static str);

#[derive(Clone)]
struct CachedAdvice {
    asked_at: Instant,
    advice: Option<Arc<str>>,
}

impl RbacAdvisor {
    /// How long advice is reused, so that a retry that is denied again costs only one request.
    const CACHE_TIME: Duration = Duration::from_secs(600);

    pub(crate) fn new(client: Arc<ApiClient>) -> Self {
        Self {
            client,
            cache: Mutex::default(),
        }
    }

    pub(crate) fn client(&self) -> &Arc<ApiClient> {
        &self.client
    }

    /// The same error, with advice if the server answered 403 because a permission is missing.
    pub(crate) async fn explain(
        &self,
        namespaces: &Namespaces,
        role: &Role,
        mut error: RequestError,
    ) -> RequestError {
        if error.code() != Some(403) || !error.is_access_denied() {
            return error;
        }
        let message = error.error.message();
        if let Some(advice) = self.cached_advice(namespaces, role, message).await {
            let message = format!("{message}\n{advice}");
            let kind = ProviderErrorKind::NotAuthorised;
            error.error = self.client.error(kind, message);
        }
        error
    }

    /// The permissions of a role that the identity of this client lacks, and how to grant them. `None` if
    /// it lacks none.
    pub(crate) async fn review(
        &self,
        namespaces: &Namespaces,
        role: &Role,
    ) -> Result<Option<MissingPermissions>, RequestError> {
        let missing = self.missing(namespaces, role).await?;
        if missing.is_empty() {
            return Ok(None);
        }
        let user = self.username().await;
        let user = user.as_deref();
        Ok(Some(MissingPermissions {
            manifest: render_manifest(namespaces, role, user),
            permissions: missing,
        }))
    }

    async fn cached_advice(
        &self,
        namespaces: &Namespaces,
        role: &Role,
        message: &str,
    ) -> Option<Arc<str>> {
        let key = (namespaces.clone(), role.name);
        // A panic elsewhere cannot leave the map half changed.
        let lock = || self.cache.lock().unwrap_or_else(PoisonError::into_inner);
        let cached = lock().get(&key).cloned();
        if let Some(cached) = cached
            && cached.asked_at.elapsed() < Self::CACHE_TIME
        {
            return cached.advice;
        }
        let advice = self.advice(namespaces, role, message).await.map(Arc::from);
        let cached = CachedAdvice {
            asked_at: Instant::now(),
            advice,
        };
        lock().insert(key, cached.clone());
        cached.advice
    }

    /// What to do about missing permissions; `None` if none are missing or the server does not say.
    async fn advice(&self, namespaces: &Namespaces, role: &Role, message: &str) -> Option<String> {
        if denied_user(message) == Some(ANONYMOUS) {
            return Some(
                "no credentials reached the server: it treats this client as anonymous".into(),
            );
        }
        let missing = match self.missing(namespaces, role).await {
            Ok(missing) => missing,
            Err(error) => {
                tracing::debug!(%error, "cannot query the permissions of this client");
                return None;
            }
        };
        if missing.is_empty() {
            return None;
        }
        let user = self.username().await;
        let user = user.as_deref().or(denied_user(message));
        Some(render_advice(namespaces, role, &missing, user))
    }

    /// The permissions of the role that are missing, each as `verb resource`.
    async fn missing(
        &self,
        namespaces: &Namespaces,
        role: &Role,
    ) -> Result<Vec<String>, RequestError> {
        let reviews = role.rules.iter().flat_map(|rule| {
            rule.verbs.iter().map(move |verb| async move {
                let allowed = self.is_allowed(namespaces, rule, verb).await?;
                Ok::<_, RequestError>((!allowed).then(|| format!("{verb} {}", rule.resource)))
            })
        });
        Ok(try_join_all(reviews).await?.into_iter().flatten().collect())
    }

    async fn is_allowed(
        &self,
        namespaces: &Namespaces,
        rule: &PolicyRule,
        verb: &str,
    ) -> Result<bool, RequestError> {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {
                // Empty for all namespaces.
                "namespace": namespaces.one().map_or("", |namespace| namespace),
                "group": rule.api_group,
                "resource": rule.resource,
                "verb": verb,
            }},
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let review: Review = self.client.send(Method::POST, path, &review).await?;
        Ok(review.status.allowed)
    }

    /// The user name by which the server knows this client; `None` before Kubernetes 1.28.
    async fn username(&self) -> Option<String> {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "SelfSubjectReview",
        });
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        let review: Result<Review, _> = self.client.send(Method::POST, path, &review).await;
        let user = review.ok()?.status.user_info.username;
        (!user.is_empty()).then(|| user.into())
    }
}

/// A SelfSubjectAccessReview or a SelfSubjectReview, as answered.
#[derive(Deserialize)]
struct Review {
    status: ReviewStatus,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ReviewStatus {
    allowed: bool,
    user_info: UserInfo,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct UserInfo {
    username: Box<str>,
}

const ANONYMOUS: &str = "system:anonymous";

/// Says which permissions are missing, followed by the YAML that grants the role. Applying it doesn't
/// change the permissions of other users, because role and binding are named after the user.
fn render_advice(
    namespaces: &Namespaces,
    role: &Role,
    missing: &[String],
    user: Option<&str>,
) -> String {
    let missing = missing.join(", ");
    let (purpose, manifest) = (role.purpose, render_manifest(namespaces, role, user));
    format!(
        "missing permissions to {purpose} in {namespaces}: {missing}; \
         to grant them, kubectl apply -f:\n{manifest}"
    )
}

/// The role and its binding as YAML.
fn render_manifest(namespaces: &Namespaces, role: &Role, user: Option<&str>) -> String {
    let Role { name, rules, .. } = role;
    let (kind, namespace, in_namespace) = match namespaces {
        Namespaces::One(name) => ("Role", &**name, format!("\n  namespace: {name}")),
        Namespaces::All => ("ClusterRole", "default", String::new()),
    };
    let name = format!("{name}:{}", object_name(namespace, user));
    let mut text = format!(
        "apiVersion: rbac.authorization.k8s.io/v1\n\
         kind: {kind}\n\
         metadata:\n  name: {name}{in_namespace}\n\
         rules:\n"
    );
    for rule in rules {
        let (group, resource, verbs) = (rule.api_group, rule.resource, rule.verbs.join(", "));
        let _ = write!(
            text,
            "- apiGroups: [{group:?}]\n  resources: [{resource}]\n  verbs: [{verbs}]\n"
        );
    }
    let _ = write!(
        text,
        "---\n\
         apiVersion: rbac.authorization.k8s.io/v1\n\
         kind: {kind}Binding\n\
         metadata:\n  name: {name}{in_namespace}\n\
         roleRef:\n  apiGroup: rbac.authorization.k8s.io\n  kind: {kind}\n  name: {name}\n\
         subjects:\n{subject}",
        subject = render_subject(namespace, user)
    );
    text
}

/// Namespace and name of the service account with this user name.
fn service_account(user: &str) -> Option<(&str, &str)> {
    user.strip_prefix("system:serviceaccount:")?.split_once(':')
}

/// The form of a user name that is used in names of objects. Names of RBAC objects may contain anything
/// but `/` and `%`, but many characters need quotes in YAML and shells.
fn object_name(namespace: &str, user: Option<&str>) -> String {
    let Some(user) = user else {
        return format!("{namespace}:default");
    };
    if let Some((namespace, name)) = service_account(user) {
        return format!("{namespace}:{name}");
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    let name: String = user
        .chars()
        .take(100)
        .map(|c| if is_plain(c) { c } else { '-' })
        .collect();
    if name == user {
        return format!("user:{name}");
    }
    format!("user:{name}-{:08x}", crc32fast::hash(user.as_bytes()))
}

/// The subject of the binding. `namespace` is used if the account isn't known.
fn render_subject(namespace: &str, user: Option<&str>) -> String {
    let Some(user) = user else {
        return format!(
            "- kind: ServiceAccount # replace by the identity of this client\n  name: default\n  \
             namespace: {namespace}"
        );
    };
    if let Some((namespace, name)) = service_account(user) {
        return format!("- kind: ServiceAccount\n  name: {name}\n  namespace: {namespace}");
    }
    // A JSON string is a YAML string too, whatever characters the name has.
    let user = json!(user);
    format!("- kind: User\n  name: {user}\n  apiGroup: rbac.authorization.k8s.io")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The object is the example in the Kubernetes documentation of `kubectl auth whoami`.
    #[test]
    fn username_is_read_from_a_self_subject_review() {
        let review = json!({
            "kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {},
            "status": {"userInfo": {"username": "ann", "groups": ["system:authenticated"]}},
        });
        let review: Review = serde_json::from_value(review).unwrap();
        assert_eq!(&*review.status.user_info.username, "ann");
    }

    fn shop() -> Namespaces {
        Namespaces::One("shop".into())
    }

    #[test]
    fn advice_is_the_role_and_its_binding() {
        let missing = ["watch services".to_owned()];
        let account = Some("system:serviceaccount:shop:web");
        let advice = render_advice(&shop(), &DISCOVERY, &missing, account);
        let (words, yaml) = advice.split_once('\n').unwrap();
        assert_eq!(
            words,
            "missing permissions to find services in namespace shop: watch services; \
             to grant them, kubectl apply -f:"
        );
        let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(yaml).unwrap();
        let meta = json!({ "name": "waypost-discovery:shop:web", "namespace": "shop" });
        let rule = |group: &str, resource: &str| json!({ "apiGroups": [group], "resources": [resource], "verbs": ["list", "watch"] });
        assert_eq!(
            documents,
            [
                json!({
                    "apiVersion": "rbac.authorization.k8s.io/v1",
                    "kind": "Role",
                    "metadata": meta,
                    "rules": [rule("", "services"), rule("discovery.k8s.io", "endpointslices")],
                }),
                json!({
                    "apiVersion": "rbac.authorization.k8s.io/v1",
                    "kind": "RoleBinding",
                    "metadata": meta,
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "waypost-discovery:shop:web"},
                    "subjects": [{"kind": "ServiceAccount", "name": "web", "namespace": "shop"}],
                }),
            ]
        );
    }

    #[test]
    fn advice_for_one_user_replaces_no_object_of_another() {
        let missing = ["watch services".to_owned()];
        let users = [
            Some("system:serviceaccount:shop:web"),
            Some("system:serviceaccount:shop:web-2"),
            Some("system:serviceaccount:web:shop"),
            Some("shop:web"),
            Some("shop/web"),
            Some("ann"),
            Some("ann@example.com"),
            None,
        ];
        let mut names = std::collections::BTreeSet::new();
        for (role, user) in users
            .iter()
            .flat_map(|user| [(&DISCOVERY, user), (&REGISTRATION, user)])
        {
            let advice = render_advice(&shop(), role, &missing, *user);
            let (_, yaml) = advice.split_once('\n').unwrap();
            let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(yaml).unwrap();
            let name = &documents[1]["metadata"]["name"];
            assert_eq!(&documents[0]["metadata"]["name"], name);
            assert_eq!(&documents[1]["roleRef"]["name"], name);
            let name = name.as_str().unwrap();
            assert!(!name.contains(['/', '%']), "{name}");
            assert!(names.insert(name.to_owned()), "{name} is not unique");
        }
    }

    #[test]
    fn a_user_name_with_special_characters_is_quoted() {
        let missing = ["watch services".to_owned()];
        let advice = render_advice(&shop(), &REGISTRATION, &missing, Some("Ann: \"A\""));
        let (_, yaml) = advice.split_once('\n').unwrap();
        let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(yaml).unwrap();
        assert_eq!(documents[1]["subjects"][0]["name"], "Ann: \"A\"");
    }
}
