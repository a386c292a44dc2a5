use std::{fmt, time::Duration};

use serde::Deserialize;

use crate::error::{ProviderError, ProviderErrorKind};

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
            error: ProviderError::new(provider, kind_of(status.code), text),
            status: Some(status.into()),
            retry_after: None,
        }
    }

    /// Whether the server says that we may not.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self.code(), 401 | 403)
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
fn kind_of(code: u16) -> ProviderErrorKind {
    match code {
        401 | 403 => ProviderErrorKind::NotAuthorised,
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
