//! Why one attempt to get a response from an instance failed.

use std::error::Error as StdError;

use waypost::Outcome;

/// Why one attempt failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AttemptError {
    pub(crate) kind: AttemptErrorKind,
    pub(crate) cause: String,
}

/// The kind of a failed attempt, which decides whether another attempt is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AttemptErrorKind {
    /// The connection could not be made, so nothing of the request was sent.
    Connect,
    /// The connection could not be made within the time limit.
    ConnectTimeout,
    /// This instance can't be called at all, for example because of its scheme.
    NotCallable,
    /// The connection broke after something was sent and before a response began.
    Broken,
    /// The connection broke before a response, and it had served requests before: the instance may have
    /// closed it because it was idle.
    BrokenReused,
    /// The gateway has no file descriptor, port or memory left for a connection.
    Shortage,
    /// The instance sent an invalid HTTP response.
    BadResponse,
    /// The response did not begin within the time limit.
    ResponseTimeout,
    /// The client stopped sending its request body.
    ClientStalled,
    /// The client's request body is incomplete or its chunked framing is invalid.
    ClientBody,
    /// The client's request body is longer than allowed.
    ClientBodyTooLarge,
}

impl AttemptErrorKind {
    /// Whether the instance cannot have received any of the request.
    pub(crate) fn is_unsent(self) -> bool {
        matches!(
            self,
            Self::Connect | Self::ConnectTimeout | Self::NotCallable | Self::Shortage
        )
    }

    /// Whether the client is the cause.
    pub(crate) fn is_of_client(self) -> bool {
        matches!(
            self,
            Self::ClientStalled | Self::ClientBody | Self::ClientBodyTooLarge
        )
    }

    /// Whether no connection to the instance can be established, so that others are preferred for a
    /// while.
    pub(crate) fn is_refusal(self) -> bool {
        matches!(
            self,
            Self::Connect | Self::ConnectTimeout | Self::NotCallable
        )
    }

    /// Whether the connection broke before a response, so that only an idempotent request may be
    /// repeated.
    pub(crate) fn is_broken(self) -> bool {
        matches!(self, Self::Broken | Self::BrokenReused)
    }

    /// The `reason` in problem documents and in the access log.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::NotCallable => "not_callable",
            Self::Broken | Self::BrokenReused => "connection_broken",
            Self::Shortage => "gateway_overloaded",
            Self::BadResponse => "bad_response",
            Self::ResponseTimeout => "response_timeout",
            Self::ClientStalled => "client_stalled",
            Self::ClientBody => "client_body",
            Self::ClientBodyTooLarge => "body_too_large",
        }
    }

    /// The outcome for outlier detection; `None` if the instance did not cause the error.
    pub(crate) fn outcome(self) -> Option<Outcome> {
        match self {
            Self::ConnectTimeout | Self::Broken | Self::BadResponse | Self::ResponseTimeout => {
                Some(Outcome::Failed)
            }
            // An instance that refuses connections is passed over for a few seconds instead: it is
            // usable as soon as it listens again, and an ejection would outlast its restart.
            Self::Connect
            | Self::NotCallable
            | Self::BrokenReused
            | Self::Shortage
            | Self::ClientStalled
            | Self::ClientBody
            | Self::ClientBodyTooLarge => None,
        }
    }
}

impl AttemptError {
    pub(crate) fn new(kind: AttemptErrorKind, cause: impl Into<String>) -> Self {
        Self {
            kind,
            cause: cause.into(),
        }
    }

    /// An attempt that failed with an error of hyper, whose root cause becomes the message.
    pub(crate) fn from_hyper(kind: AttemptErrorKind, error: &hyper::Error) -> Self {
        let mut cause: &(dyn StdError + 'static) = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        Self::new(kind, cause.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_not_charged_for_a_failure_of_the_client_or_the_gateway() {
        use AttemptErrorKind as Kind;
        for kind in [
            Kind::ConnectTimeout,
            Kind::Broken,
            Kind::BadResponse,
            Kind::ResponseTimeout,
        ] {
            assert_eq!(kind.outcome(), Some(Outcome::Failed), "{kind:?}");
        }
        for kind in [
            Kind::Connect,
            Kind::NotCallable,
            Kind::BrokenReused,
            Kind::Shortage,
            Kind::ClientStalled,
            Kind::ClientBody,
            Kind::ClientBodyTooLarge,
        ] {
            assert_eq!(kind.outcome(), None, "{kind:?}");
        }
    }
}
