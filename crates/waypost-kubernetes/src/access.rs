//! What we may do, asked of the API server itself; and what to apply where that is too little.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::try_join_all;
use http::Method;
use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;
use waypost_core::ProviderErrorKind;

use super::connection::Connection;
use super::fault::{Fault, named_in};

/// What a task needs: the verbs on two kinds of object.
#[derive(Debug)]
pub(super) struct Rights {
    /// The name of the Role that is suggested.
    role: &'static str,
    /// What for, in words.
    task: &'static str,
    rules: [Rule; 2],
}

#[derive(Debug)]
struct Rule {
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
}

/// To find services.
pub(super) const READ: Rights = Rights {
    role: "waypost-discovery",
    task: "find services",
    rules: [
        Rule {
            group: "",
            resource: "services",
            verbs: &["list", "watch"],
        },
        Rule {
            group: "discovery.k8s.io",
            resource: "endpointslices",
            verbs: &["list", "watch"],
        },
    ],
};

/// To register what runs outside of the cluster.
pub(super) const REGISTER: Rights = Rights {
    role: "waypost-registration",
    task: "register instances",
    rules: [
        Rule {
            group: "",
            resource: "services",
            verbs: &["get", "create", "delete"],
        },
        Rule {
            group: "discovery.k8s.io",
            resource: "endpointslices",
            verbs: &["get", "list", "create", "update", "delete"],
        },
    ],
};

/// Our advice by namespace and role, and when we asked for it.
#[derive(Debug, Default)]
pub(super) struct Told(Mutex<BTreeMap<(Box<str>, &'static str), Asked>>);

/// When it was, and what to apply, if that is known.
type Asked = (Instant, Option<Arc<str>>);

/// How long an advice is good. Who is refused tries on, and that shall cost no more than the try.
const GOOD_FOR: Duration = Duration::from_secs(600);

impl Connection {
    /// What to apply so that all these rights are there; `None` if they are, or if the server
    /// doesn't say.
    async fn advice(&self, namespace: &str, rights: &Rights, refusal: &str) -> Option<String> {
        if named_in(refusal) == Some(ANONYMOUS) {
            return Some("no credentials reached the server, so it takes us for nobody".into());
        }
        let missing = match self.missing(namespace, rights).await {
            Ok(missing) => missing,
            Err(fault) => {
                tracing::debug!(%fault, "the API server doesn't say what we may do");
                return None;
            }
        };
        if missing.is_empty() {
            return None;
        }
        let subject = self.subject().await;
        let subject = subject.as_deref().or(named_in(refusal));
        Some(advice(namespace, rights, &missing, subject))
    }

    /// The fault of a request that was refused, with what to apply.
    pub(super) async fn explain(
        &self,
        namespace: &str,
        rights: &Rights,
        mut fault: Fault,
    ) -> Fault {
        if fault.code() != 403 || !fault.is_refusal() {
            return fault;
        }
        let key = (namespace.into(), rights.role);
        let refusal = fault.error.message();
        let advice = match self.told.get(&key) {
            Some((asked, advice)) if asked.elapsed() < GOOD_FOR => advice,
            _ => {
                let advice = self.advice(namespace, rights, refusal).await;
                let advice = advice.map(Arc::from);
                self.told.set(key, (Instant::now(), advice.clone()));
                advice
            }
        };
        if let Some(advice) = advice {
            let message = format!("{refusal}\n{advice}");
            fault.error = self.error(ProviderErrorKind::NotAuthorised, message);
        }
        fault
    }

    /// Of these rights those that we don't have, as `verb resource`.
    async fn missing(&self, namespace: &str, rights: &Rights) -> Result<Vec<String>, Fault> {
        let reviews = rights.rules.iter().flat_map(|rule| {
            rule.verbs.iter().map(move |verb| async move {
                let allowed = self.allowed(namespace, rule, verb).await?;
                Ok::<_, Fault>((!allowed).then(|| format!("{verb} {}", rule.resource)))
            })
        });
        Ok(try_join_all(reviews).await?.into_iter().flatten().collect())
    }

    async fn allowed(&self, namespace: &str, rule: &Rule, verb: &str) -> Result<bool, Fault> {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {
                "namespace": namespace,
                "group": rule.group,
                "resource": rule.resource,
                "verb": verb,
            }},
        });
        let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        let reviewed: Review = self.send(Method::POST, path, &review).await?;
        Ok(reviewed.status.allowed)
    }

    /// Whom the server takes us for. Servers before Kubernetes 1.28 don't say it here.
    async fn subject(&self) -> Option<String> {
        let review = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "SelfSubjectReview",
        });
        let path = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        let reviewed: Result<Review, _> = self.send(Method::POST, path, &review).await;
        let user = reviewed.ok()?.status.user_info.username;
        (!user.is_empty()).then(|| user.into())
    }
}

impl Told {
    fn get(&self, key: &(Box<str>, &'static str)) -> Option<Asked> {
        self.lock().get(key).cloned()
    }

    fn set(&self, key: (Box<str>, &'static str), asked: Asked) {
        self.lock().insert(key, asked);
    }

    /// A map is never half changed, so a panic elsewhere leaves it in order.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<(Box<str>, &'static str), Asked>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answer of both kinds of review.
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

/// In words what is missing, and as YAML what gives it.
fn advice(namespace: &str, rights: &Rights, missing: &[String], subject: Option<&str>) -> String {
    let missing = missing.join(", ");
    let task = rights.task;
    let mut yaml = format!(
        "to {task} in namespace {namespace} we lack: {missing}; kubectl apply -f this gives it:\n\
         apiVersion: rbac.authorization.k8s.io/v1\n\
         kind: Role\n\
         metadata:\n  name: {role}\n  namespace: {namespace}\n\
         rules:\n",
        role = rights.role
    );
    for rule in &rights.rules {
        let (group, resource, verbs) = (rule.group, rule.resource, rule.verbs.join(", "));
        let _ = write!(
            yaml,
            "- apiGroups: [{group:?}]\n  resources: [{resource}]\n  verbs: [{verbs}]\n"
        );
    }
    let _ = write!(
        yaml,
        "---\n\
         apiVersion: rbac.authorization.k8s.io/v1\n\
         kind: RoleBinding\n\
         metadata:\n  name: {role}\n  namespace: {namespace}\n\
         roleRef:\n  apiGroup: rbac.authorization.k8s.io\n  kind: Role\n  name: {role}\n\
         subjects:\n{subject}",
        role = rights.role,
        subject = bound(subject)
    );
    yaml
}

/// The subject of the binding.
fn bound(subject: Option<&str>) -> String {
    let account = subject.and_then(|user| user.strip_prefix("system:serviceaccount:"));
    match (subject, account.and_then(|account| account.split_once(':'))) {
        (_, Some((namespace, name))) => {
            format!("- kind: ServiceAccount\n  name: {name}\n  namespace: {namespace}")
        }
        (Some(user), None) => {
            // JSON's strings are YAML's too, whatever is in the name.
            let user = json!(user);
            format!("- kind: User\n  name: {user}\n  apiGroup: rbac.authorization.k8s.io")
        }
        (None, None) => "- kind: ServiceAccount # or whoever we are\n  name: default".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As in Kubernetes' documentation of `kubectl auth whoami`.
    #[test]
    fn the_server_says_who_we_are() {
        let said = json!({
            "kind": "SelfSubjectReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {},
            "status": {"userInfo": {"username": "ann", "groups": ["system:authenticated"]}},
        });
        let review: Review = serde_json::from_value(said).unwrap();
        assert_eq!(&*review.status.user_info.username, "ann");
    }

    #[test]
    fn a_refusal_names_the_user() {
        let said = "403: services is forbidden: User \"ann\" cannot list resource \"services\"";
        assert_eq!(named_in(said), Some("ann"));
        assert_eq!(named_in("403: no"), None);
    }

    #[test]
    fn the_advice_is_the_role_and_its_binding() {
        let missing = ["watch services".to_owned()];
        let account = Some("system:serviceaccount:shop:web");
        let said = advice("shop", &READ, &missing, account);
        let (words, yaml) = said.split_once('\n').unwrap();
        assert_eq!(
            words,
            "to find services in namespace shop we lack: watch services; \
             kubectl apply -f this gives it:"
        );
        let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(yaml).unwrap();
        let meta = json!({ "name": "waypost-discovery", "namespace": "shop" });
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
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "waypost-discovery"},
                    "subjects": [{"kind": "ServiceAccount", "name": "web", "namespace": "shop"}],
                }),
            ]
        );
        let user = advice("shop", &REGISTER, &missing, Some("Ann: \"A\""));
        let (_, yaml) = user.split_once('\n').unwrap();
        let documents: Vec<serde_json::Value> = serde_saphyr::from_multiple(yaml).unwrap();
        assert_eq!(documents[1]["subjects"][0]["name"], "Ann: \"A\"");
    }
}
