//! Failed requests to the API server, and the `Status` objects that explain them.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use waypost_core::{ProviderError, ProviderErrorKind};

/// A failed request to the API server, with what is needed to decide what to do next.
#[derive(Clone, Debug)]
pub(crate) struct RequestError {
    pub(crate) error: ProviderError,
    /// The server's response; `None` if there was none.
    status: Option<Box<ApiStatus>>,
    /// The `Retry-After` of the response.
    pub(crate) retry_after: Option<Duration>,
}

/// The API's `Status` object: how the server describes a failure.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ApiStatus {
    pub(crate) code: u16,
    pub(crate) reason: String,
    pub(crate) message: String,
}

impl RequestError {
    /// The error for a response with this status. `identity` says where the credentials came from.
    pub(crate) fn from_status(provider: &str, status: ApiStatus, identity: &str) -> Self {
        let message = match status.message.trim() {
            "" => status.reason.as_str(),
            message => message,
        };
        let message: String = message.chars().take(1000).collect();
        let mut text = format!("{}: {message}", status.code);
        if status.code == 401 {
            text = format!("{text}; the server does not accept {identity}");
        }
        Self {
            error: ProviderError::new(provider, error_kind(&status), text),
            status: Some(status.into()),
            retry_after: None,
        }
    }

    /// The HTTP status code; `None` if there was no response.
    pub(crate) fn code(&self) -> Option<u16> {
        self.status.as_ref().map(|status| status.code)
    }

    /// Whether the server denied access: the credentials are invalid or lack a permission.
    pub(crate) fn is_access_denied(&self) -> bool {
        self.status
            .as_deref()
            .is_some_and(ApiStatus::is_access_denied)
    }

    /// Whether there is no such object.
    pub(crate) fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// Whether the object exists already, or has changed meanwhile.
    pub(crate) fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// Whether the requested resource version is older than the server's watch cache.
    pub(crate) fn is_gone(&self) -> bool {
        self.code() == Some(410)
    }

    /// Whether the server is up: it answered, although with an error below 500.
    pub(crate) fn server_is_up(&self) -> bool {
        self.code().is_some_and(|code| code < 500)
    }
}

impl ApiStatus {
    /// Whether the status is about the client's credentials or permissions. Admission also answers
    /// 403, for quotas, webhooks and terminating namespaces, but only the authorizer's message names
    /// the user.
    fn is_access_denied(&self) -> bool {
        let by_admission =
            self.message.contains(" is forbidden: ") && denied_user(&self.message).is_none();
        matches!(self.code, 401 | 403) && !by_admission
    }
}

/// The user in the authorizer's message: `… is forbidden: User "name" cannot …`.
pub(crate) fn denied_user(message: &str) -> Option<&str> {
    let (_, rest) = message.split_once("User \"")?;
    rest.split_once("\" cannot ").map(|(name, _)| name)
}

/// Maps a status to an error kind (Kubernetes API conventions, "HTTP Status codes").
fn error_kind(status: &ApiStatus) -> ProviderErrorKind {
    match status.code {
        401 | 403 if status.is_access_denied() => ProviderErrorKind::NotAuthorised,
        // Timeout, too many requests, and an expired resource version: a later attempt can succeed.
        408 | 410 | 429 => ProviderErrorKind::Unreachable,
        400..=499 => ProviderErrorKind::Rejected,
        _ => ProviderErrorKind::Unreachable,
    }
}

impl From<ProviderError> for RequestError {
    fn from(error: ProviderError) -> Self {
        Self {
            error,
            status: None,
            retry_after: None,
        }
    }
}

impl From<RequestError> for ProviderError {
    fn from(error: RequestError) -> Self {
        error.error
    }
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The messages are those of API server 1.36.
    #[test]
    fn a_403_by_admission_is_not_access_denied() {
        for (message, is_access_denied) in [
            (
                r#"services is forbidden: User "ann" cannot list resource "services" in API group """#,
                true,
            ),
            ("Forbidden", true),
            (
                "services \"web\" is forbidden: unable to create new content in namespace demo because it is being terminated",
                false,
            ),
            (
                "services \"web\" is forbidden: exceeded quota: few, requested: services=1, used: services=1, limited: services=1",
                false,
            ),
        ] {
            let status = ApiStatus {
                code: 403,
                message: message.into(),
                ..ApiStatus::default()
            };
            let error = RequestError::from_status("test", status, "me");
            assert_eq!(error.is_access_denied(), is_access_denied, "{message}");
            let is_not_authorised = error.error.kind() == ProviderErrorKind::NotAuthorised;
            assert_eq!(is_not_authorised, is_access_denied, "{message}");
        }
    }

    #[test]
    fn the_code_of_a_status_decides_what_it_means() {
        use ProviderErrorKind::{NotAuthorised, Rejected, Unreachable};
        for (code, kind, is_up) in [
            (400, Rejected, true),
            (401, NotAuthorised, true),
            (403, NotAuthorised, true),
            (404, Rejected, true),
            (408, Unreachable, true),
            (409, Rejected, true),
            (410, Unreachable, true),
            (422, Rejected, true),
            (429, Unreachable, true),
            (499, Rejected, true),
            (500, Unreachable, false),
            (503, Unreachable, false),
        ] {
            let status = ApiStatus {
                code,
                reason: "Reason".into(),
                message: " ".into(),
            };
            let error = RequestError::from_status("k", status, "our token");
            assert_eq!(error.error.kind(), kind, "{code}");
            assert_eq!((error.code(), error.server_is_up()), (Some(code), is_up));
            assert_eq!(error.is_not_found(), code == 404);
            assert_eq!(error.is_conflict(), code == 409);
            assert_eq!(error.is_gone(), code == 410);
            assert_eq!(error.is_access_denied(), matches!(code, 401 | 403));
            let hint = match code {
                401 => "; the server does not accept our token",
                _ => "",
            };
            assert_eq!(error.to_string(), format!("k: {code}: Reason{hint}"));
        }
        let long = ApiStatus {
            code: 500,
            message: "ü".repeat(1001),
            ..ApiStatus::default()
        };
        let message = RequestError::from_status("k", long, "me");
        assert_eq!(
            message.error.message().chars().count(),
            "500: ".len() + 1000
        );
        let without_response = RequestError::from(ProviderError::unreachable("k", "refused"));
        assert_eq!(
            (without_response.code(), without_response.server_is_up()),
            (None, false)
        );
    }

    #[test]
    fn an_error_of_a_request_is_that_of_the_provider() {
        let error = ProviderError::unreachable("kubernetes at https://k", "refused");
        let request = RequestError::from(error.clone());
        assert_eq!(request.to_string(), "kubernetes at https://k: refused");
        assert_eq!(ProviderError::from(request).to_string(), error.to_string());
    }

    #[test]
    fn the_authorizers_message_names_the_user() {
        let message = "403: services is forbidden: User \"ann\" cannot list resource \"services\"";
        assert_eq!(denied_user(message), Some("ann"));
        assert_eq!(denied_user("403: no"), None);
    }
}
