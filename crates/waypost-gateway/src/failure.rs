//! Why an attempt gave no response.

use std::error::Error as StdError;
use std::io;

use hyper_util::client::legacy::Error as ClientError;

/// Why an attempt gave no response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: FailureKind,
    pub(crate) cause: String,
}

/// What an attempt failed at; it decides whether another is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FailureKind {
    /// There is no connection, so nothing of the request was sent.
    Connect,
    /// There was no connection within the time allowed.
    ConnectTimeout,
    /// This instance can't be called at all, now or later.
    Unsent,
    /// The connection broke after something was sent and before a response came.
    Broken,
    /// What came back is no HTTP response.
    BadResponse,
    /// The response did not begin in time.
    ResponseTimeout,
    /// The client stopped sending its body.
    ClientStalled,
    /// The client broke its body off, or framed it wrongly.
    ClientBody,
}

impl FailureKind {
    /// Whether the instance has certainly seen nothing of the request.
    pub(crate) fn is_unsent(self) -> bool {
        matches!(self, Self::Connect | Self::ConnectTimeout | Self::Unsent)
    }

    /// The word for it in a log.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect_failed",
            Self::ConnectTimeout => "connect_timeout",
            Self::Unsent => "not_callable",
            Self::Broken => "connection_broken",
            Self::BadResponse => "bad_response",
            Self::ResponseTimeout => "response_timeout",
            Self::ClientStalled => "client_stalled",
            Self::ClientBody => "client_body",
        }
    }
}

impl Failure {
    pub(crate) fn new(kind: FailureKind, cause: impl Into<String>) -> Self {
        Self {
            kind,
            cause: cause.into(),
        }
    }

    pub(crate) fn unsent(cause: impl Into<String>) -> Self {
        Self::new(FailureKind::Unsent, cause)
    }

    pub(crate) fn from_client(error: &ClientError) -> Self {
        let kind = if error.is_connect() {
            let timed_out = causes(error)
                .filter_map(|cause| cause.downcast_ref::<io::Error>())
                .any(|io| io.kind() == io::ErrorKind::TimedOut);
            if timed_out {
                FailureKind::ConnectTimeout
            } else {
                FailureKind::Connect
            }
        } else {
            match causes(error).find_map(|cause| cause.downcast_ref::<hyper::Error>()) {
                Some(hyper) if hyper.is_parse() => FailureKind::BadResponse,
                // The library hands such a request back unwritten.
                Some(hyper) if hyper.is_canceled() => FailureKind::Connect,
                _ => FailureKind::Broken,
            }
        };
        let cause = causes(error)
            .last()
            .map_or_else(|| error.to_string(), ToString::to_string);
        Self::new(kind, cause)
    }
}

/// What led to an error, the innermost last.
fn causes(error: &ClientError) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    let mut next = error.source();
    std::iter::from_fn(move || {
        let cause = next?;
        next = cause.source();
        Some(cause)
    })
}
