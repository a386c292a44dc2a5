//! Failures, with the API server's own messages where clients parse them.

use http::StatusCode;
use serde_json::{Value, json};

use crate::auth::credentials::User;
use crate::auth::rbac::Action;
use crate::kind::Kind;

/// Why a request fails (`Status` of the Kubernetes API).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub code: StatusCode,
    pub reason: &'static str,
    pub message: String,
}

impl Status {
    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
        }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    /// A request that a real server supports, but this one doesn't.
    pub(crate) fn unsupported(what: &str) -> Self {
        let message = format!("the fake API server does not support {what}");
        Self::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message)
    }

    pub(crate) fn unauthorized() -> Self {
        Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", "Unauthorized")
    }

    /// The user may not do this with objects of a kind.
    pub(crate) fn not_allowed(user: &User, kind: Kind, action: Action<'_>) -> Self {
        let Action {
            verb,
            group,
            resource,
            namespace,
            name,
        } = action;
        let mut subject = kind.qualified_plural();
        if !name.is_empty() {
            subject = format!("{subject} {name:?}");
        }
        let place = if namespace.is_empty() {
            "at the cluster scope".to_owned()
        } else {
            format!("in the namespace {namespace:?}")
        };
        let why = format!(
            "User {:?} cannot {verb} resource {resource:?} in API group {group:?} {place}",
            user.name
        );
        Self::forbidden(&subject, &why)
    }

    pub(crate) fn forbidden(subject: &str, why: &str) -> Self {
        let message = format!("{subject} is forbidden: {why}");
        Self::new(StatusCode::FORBIDDEN, "Forbidden", message)
    }

    /// A new object in a namespace that is being deleted.
    pub(crate) fn terminating(kind: Kind, name: &str, namespace: &str) -> Self {
        let subject = format!("{} {name:?}", kind.qualified_plural());
        let why = format!(
            "unable to create new content in namespace {namespace} because it is being terminated"
        );
        Self::forbidden(&subject, &why)
    }

    pub(crate) fn not_found(kind: Kind, name: &str) -> Self {
        let message = format!("{} {name:?} not found", kind.qualified_plural());
        Self::new(StatusCode::NOT_FOUND, "NotFound", message)
    }

    pub(crate) fn no_such_resource() -> Self {
        let message = "the server could not find the requested resource";
        Self::new(StatusCode::NOT_FOUND, "NotFound", message)
    }

    pub(crate) fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
    }

    pub(crate) fn already_exists(kind: Kind, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", kind.qualified_plural());
        Self::new(StatusCode::CONFLICT, "AlreadyExists", message)
    }

    pub(crate) fn conflict(kind: Kind, name: &str, why: &str) -> Self {
        let kind = kind.qualified_plural();
        let message = format!("Operation cannot be fulfilled on {kind} {name:?}: {why}");
        Self::new(StatusCode::CONFLICT, "Conflict", message)
    }

    pub(crate) fn invalid(kind: Kind, name: &str, faults: &[String]) -> Self {
        let (kind, faults) = (kind.qualified_name(), faults.join(", "));
        let message = format!("{kind} {name:?} is invalid: {faults}");
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
    }

    pub(crate) fn invalid_options(fault: &str) -> Self {
        let message = format!("ListOptions.meta.k8s.io \"\" is invalid: {fault}");
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", message)
    }

    /// A watch cannot start at a revision that is no longer in the watch cache.
    pub(crate) fn expired(asked: u64, oldest: u64) -> Self {
        let message = format!("too old resource version: {asked} ({oldest})");
        Self::new(StatusCode::GONE, "Expired", message)
    }

    pub(crate) fn expired_continue() -> Self {
        let message =
            "The provided continue parameter is too old to display a consistent list result.";
        Self::new(StatusCode::GONE, "Expired", message)
    }

    pub(crate) fn timeout() -> Self {
        let message = "Timeout: request did not complete within requested timeout";
        Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message)
    }

    pub(crate) fn internal(message: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }

    /// The failure that a test has injected: 500 or 503.
    pub(crate) fn injected(code: StatusCode) -> Self {
        let (reason, message) = if code == StatusCode::SERVICE_UNAVAILABLE {
            (
                "ServiceUnavailable",
                "the server is currently unable to handle the request",
            )
        } else {
            (
                "InternalError",
                "an error on the server has prevented the request",
            )
        };
        Self::new(code, reason, message)
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code.as_u16(),
        })
    }
}
