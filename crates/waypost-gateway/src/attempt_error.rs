//! Why one attempt to get a response from an instance failed.

use std::error::Error as StdError;
use std::io;

use hyper_util::client::legacy::Error as ClientError;
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
    /// What the instance sent is not an HTTP response.
    BadResponse,
    /// The response did not begin within the time limit.
    ResponseTimeout,
    /// The client stopped sending its request body.
    ClientStalled,
    /// The client's request body is incomplete or its chunked framing is invalid.
    ClientBody,
}

impl AttemptErrorKind {
    /// Whether the instance cannot have received any of the request.
    pub(crate) fn is_unsent(self) -> bool {
        matches!(
            self,
            Self::Connect | Self::ConnectTimeout | Self::NotCallable
        )
    }

    /// The `reason` in problem documents and in the access log.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::NotCallable => "not_callable",
            Self::Broken => "connection_broken",
            Self::BadResponse => "bad_response",
            Self::ResponseTimeout => "response_timeout",
            Self::ClientStalled => "client_stalled",
            Self::ClientBody => "client_body",
        }
    }

    /// What outlier detection records for the instance; `None` if the instance did not cause it.
    pub(crate) fn outcome(self) -> Option<Outcome> {
        match self {
            Self::ConnectTimeout | Self::Broken | Self::BadResponse | Self::ResponseTimeout => {
                Some(Outcome::Failed)
            }
            // An instance that refuses connections is passed over for a few seconds instead: it is
            // usable as soon as it listens again, and an ejection would outlast its restart.
            Self::Connect | Self::NotCallable | Self::ClientStalled | Self::ClientBody => None,
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

    pub(crate) fn from_client(error: &ClientError) -> Self {
        let kind = if error.is_connect() {
            let timed_out = sources(error)
                .filter_map(|source| source.downcast_ref::<io::Error>())
                .any(|io| io.kind() == io::ErrorKind::TimedOut);
            if timed_out {
                AttemptErrorKind::ConnectTimeout
            } else {
                AttemptErrorKind::Connect
            }
        } else {
            match sources(error).find_map(|source| source.downcast_ref::<hyper::Error>()) {
                Some(hyper) if hyper.is_parse() => AttemptErrorKind::BadResponse,
                // hyper cancels a request only before it has written any of it.
                Some(hyper) if hyper.is_canceled() => AttemptErrorKind::Connect,
                _ => AttemptErrorKind::Broken,
            }
        };
        let cause = sources(error)
            .last()
            .map_or_else(|| error.to_string(), ToString::to_string);
        Self::new(kind, cause)
    }
}

/// The chain of sources of an error, the root cause last.
fn sources(error: &ClientError) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    std::iter::successors(error.source(), |&source| source.source())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_not_charged_for_a_failure_of_the_client() {
        assert_eq!(AttemptErrorKind::Broken.outcome(), Some(Outcome::Failed));
        assert_eq!(AttemptErrorKind::ClientBody.outcome(), None);
    }
}
