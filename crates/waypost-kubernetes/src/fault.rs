use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use waypost_core::{ProviderError, ProviderErrorKind};

/// A request that failed, with what one needs to choose the next step.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) error: ProviderError,
    /// What the server said, if it said anything.
    pub(super) status: Option<Box<Status>>,
    /// How long the server wants us to wait before the next try.
    pub(super) retry_after: Option<Duration>,
}

/// What the server says of a failure (`Status` of the Kubernetes API).
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    pub(super) code: u16,
    pub(super) reason: String,
    pub(super) message: String,
}

impl Status {
    /// Whether it is about our rights. What was admitted by them may still be refused with 403, by
    /// a quota, a webhook or because the namespace is being deleted; only the authorizer names who
    /// cannot do what.
    fn is_about_rights(&self) -> bool {
        let by_admission =
            self.message.contains(" is forbidden: ") && named_in(&self.message).is_none();
        matches!(self.code, 401 | 403) && !by_admission
    }
}

/// The user that a refusal speaks of: `… is forbidden: User "name" cannot …`.
pub(super) fn named_in(refusal: &str) -> Option<&str> {
    let (_, rest) = refusal.split_once("User \"")?;
    rest.split_once("\" cannot ").map(|(name, _)| name)
}

impl Fault {
    /// The server was asked and said this.
    pub(super) fn said(provider: &str, status: Status, identity: &str) -> Self {
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
            error: ProviderError::new(provider, kind_of(&status), text),
            status: Some(status.into()),
            retry_after: None,
        }
    }

    /// Whether the server says that we may not.
    pub(super) fn is_refusal(&self) -> bool {
        let status = self.status.as_deref();
        status.is_some_and(Status::is_about_rights)
    }

    /// Whether what we want to go on from is no longer kept.
    pub(super) fn is_gone(&self) -> bool {
        self.code() == 410
    }

    /// The status code of the answer; 0 if there was none.
    pub(super) fn code(&self) -> u16 {
        self.status.as_ref().map_or(0, |status| status.code)
    }
}

/// What a status other than 2xx means (Kubernetes API conventions, "HTTP Status codes").
fn kind_of(status: &Status) -> ProviderErrorKind {
    match status.code {
        401 | 403 if status.is_about_rights() => ProviderErrorKind::NotAuthorised,
        408 | 429 => ProviderErrorKind::Unreachable,
        // What we want to go on from is too old; a new reading helps.
        410 => ProviderErrorKind::Unreachable,
        400..=499 => ProviderErrorKind::Rejected,
        _ => ProviderErrorKind::Unreachable,
    }
}

impl From<ProviderError> for Fault {
    fn from(error: ProviderError) -> Self {
        Self {
            error,
            status: None,
            retry_after: None,
        }
    }
}

impl From<Fault> for ProviderError {
    fn from(fault: Fault) -> Self {
        fault.error
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// In the words of a server of version 1.36.
    #[test]
    fn not_every_403_is_about_rights() {
        for (message, is_refusal) in [
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
            let status = Status {
                code: 403,
                message: message.into(),
                ..Status::default()
            };
            let fault = Fault::said("test", status, "me");
            assert_eq!(fault.is_refusal(), is_refusal, "{message}");
            let kind = fault.error.kind();
            assert_eq!(
                kind == ProviderErrorKind::NotAuthorised,
                is_refusal,
                "{message}"
            );
        }
    }
}
