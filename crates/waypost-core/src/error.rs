//! What can go wrong, one variant per cause, each with what one needs to act on it.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{Invalid, ServiceName};

/// Why a service could not be found, called or registered.
///
/// Clones are cheap: a thousand callers that waited for one attempt get one and the same error.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The provider answered that it doesn't know the name.
    #[error("service {service:?} is unknown to {provider}{}", Age(*.age))]
    UnknownService {
        /// The name that was asked for.
        service: ServiceName,
        /// Who was asked.
        provider: Arc<str>,
        /// How old the answer is; zero while the provider's watch is live.
        age: Duration,
    },
    /// The service is known, but has no instance now.
    #[error("service {service:?} has no instances, says {provider}{}", Age(*.age))]
    NoInstances {
        /// The name that was asked for.
        service: ServiceName,
        /// Who was asked.
        provider: Arc<str>,
        /// How old the answer is; zero while the provider's watch is live.
        age: Duration,
    },
    /// The service has instances, but each of them is critical.
    #[error("none of the {instances} instances of service {service:?} is healthy, says {provider}{}", Age(*.age))]
    NoneHealthy {
        /// The name that was asked for.
        service: ServiceName,
        /// Who was asked.
        provider: Arc<str>,
        /// How old the answer is; zero while the provider's watch is live.
        age: Duration,
        /// How many instances there are.
        instances: usize,
    },
    /// The registry has failed for longer than the directory's
    /// `max_stale` allows old answers to be used.
    #[error("{}the last answer of {provider} is too old: {}{}", Of(.service), Rounded(*.age), Cause(.cause))]
    Stale {
        /// The service that was asked for, if it was about one.
        service: Option<ServiceName>,
        /// Who was asked.
        provider: Arc<str>,
        /// How old the last answer is.
        age: Duration,
        /// How the provider fails since.
        cause: Option<ProviderError>,
    },
    /// The registry can't be reached or gives no usable answer, and no earlier answer is known.
    #[error("{}registry unreachable: {cause}", Of(.service))]
    Unreachable {
        /// The service that was asked for, if it was about one.
        service: Option<ServiceName>,
        /// What happened.
        cause: ProviderError,
    },
    /// The registry refuses us.
    #[error("{}not authorised: {cause}", Of(.service))]
    NotAuthorised {
        /// The service that was asked for, if it was about one.
        service: Option<ServiceName>,
        /// What the registry said.
        cause: ProviderError,
    },
    /// No answer came in the time that the caller or the provider allows.
    #[error("{}no answer from {provider} in {}{}", Of(.service), humantime::format_duration(*.waited), Cause(.cause))]
    TimedOut {
        /// The service that was asked for, if it was about one.
        service: Option<ServiceName>,
        /// Who was asked.
        provider: Arc<str>,
        /// How long was waited.
        waited: Duration,
        /// What the provider said of it, if it did.
        cause: Option<ProviderError>,
    },
    /// The provider can't do this at all.
    #[error("{0}")]
    Unsupported(ProviderError),
    /// The registry understood the request and refuses what it says.
    #[error("{0}")]
    Rejected(ProviderError),
    /// A function of `waypost::blocking` was called within an async runtime.
    #[error(
        "a blocking call within an async runtime would hold up a thread that others need; \
         use the async functions of waypost there"
    )]
    WithinRuntime,
    /// A value that was given is not valid.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The configuration is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl Error {
    /// The error of a call about `service`, caused by a failed attempt of the provider.
    pub fn from_provider(service: Option<ServiceName>, cause: &ProviderError) -> Self {
        let cause = cause.clone();
        match cause.kind {
            ProviderErrorKind::Unreachable
            | ProviderErrorKind::BadAnswer
            | ProviderErrorKind::Unconfirmed => Self::Unreachable { service, cause },
            ProviderErrorKind::NotAuthorised => Self::NotAuthorised { service, cause },
            ProviderErrorKind::TimedOut { after } => Self::TimedOut {
                service,
                provider: Arc::clone(&cause.provider),
                waited: after,
                cause: Some(cause),
            },
            ProviderErrorKind::Unsupported => Self::Unsupported(cause),
            ProviderErrorKind::Rejected => Self::Rejected(cause),
        }
    }

    /// Whether the same request may succeed a little later, with nobody changing a configuration.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NoInstances { .. }
            | Self::NoneHealthy { .. }
            | Self::Stale { .. }
            | Self::Unreachable { .. }
            | Self::TimedOut { .. } => true,
            Self::UnknownService { .. }
            | Self::NotAuthorised { .. }
            | Self::Unsupported(_)
            | Self::Rejected(_)
            | Self::WithinRuntime
            | Self::Invalid(_)
            | Self::Config(_) => false,
        }
    }

    /// The provider that it came from, if one was asked.
    pub fn provider(&self) -> Option<&str> {
        match self {
            Self::UnknownService { provider, .. }
            | Self::NoInstances { provider, .. }
            | Self::NoneHealthy { provider, .. }
            | Self::Stale { provider, .. }
            | Self::TimedOut { provider, .. } => Some(provider),
            Self::Unreachable { cause, .. }
            | Self::NotAuthorised { cause, .. }
            | Self::Unsupported(cause)
            | Self::Rejected(cause) => Some(cause.provider()),
            Self::WithinRuntime | Self::Invalid(_) | Self::Config(_) => None,
        }
    }

    /// How old the answer is that led to this error; `None` where nothing was answered.
    pub fn age(&self) -> Option<Duration> {
        match self {
            Self::UnknownService { age, .. }
            | Self::NoInstances { age, .. }
            | Self::NoneHealthy { age, .. }
            | Self::Stale { age, .. } => Some(*age),
            _ => None,
        }
    }

    /// Whether the provider answered that there is nothing to call, so that a fallback may step
    /// in: unknown service, no instances or none healthy.
    pub fn is_nothing_there(&self) -> bool {
        matches!(
            self,
            Self::UnknownService { .. } | Self::NoInstances { .. } | Self::NoneHealthy { .. }
        )
    }
}

impl From<ProviderError> for Error {
    fn from(cause: ProviderError) -> Self {
        Self::from_provider(None, &cause)
    }
}

/// One failed attempt of a provider. It says nothing about any instance.
#[derive(Clone, Debug)]
pub struct ProviderError {
    provider: Arc<str>,
    kind: ProviderErrorKind,
    message: Arc<str>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// What sort of failure a [`ProviderError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProviderErrorKind {
    /// No connection, a broken one, or an answer of "not now" (429, 5xx).
    Unreachable,
    /// No answer in time.
    TimedOut {
        /// How long was waited.
        after: Duration,
    },
    /// The registry refuses our credentials, or wants some (401, 403).
    NotAuthorised,
    /// An answer came that makes no sense.
    BadAnswer,
    /// An answer says that all instances are gone; it must hold for a while to be believed.
    Unconfirmed,
    /// The registry understood and refuses what we asked (other 4xx).
    Rejected,
    /// This provider can't do that at all.
    Unsupported,
}

impl ProviderError {
    /// An error of the provider described by `provider`; the message says what happened, and what
    /// would help where that is known.
    pub fn new(
        provider: impl Into<Arc<str>>,
        kind: ProviderErrorKind,
        message: impl Into<Arc<str>>,
    ) -> Self {
        Self {
            provider: provider.into(),
            kind,
            message: message.into(),
            source: None,
        }
    }

    /// The registry can't be reached.
    pub fn unreachable(provider: impl Into<Arc<str>>, message: impl Into<Arc<str>>) -> Self {
        Self::new(provider, ProviderErrorKind::Unreachable, message)
    }

    /// The provider can't do this; the message says why and what to do instead.
    pub fn unsupported(provider: impl Into<Arc<str>>, message: impl Into<Arc<str>>) -> Self {
        Self::new(provider, ProviderErrorKind::Unsupported, message)
    }

    /// Adds the error behind this one.
    #[must_use]
    pub fn because(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// The provider, with its address.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// What sort of failure it is.
    pub fn kind(&self) -> ProviderErrorKind {
        self.kind
    }

    /// What happened.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.provider, self.message)?;
        // The innermost cause is the one that names the fault ("connection refused").
        let mut source = self.source();
        let mut innermost = None;
        while let Some(error) = source {
            source = error.source();
            innermost = Some(error);
        }
        match innermost {
            Some(cause) => write!(f, " ({cause})"),
            None => Ok(()),
        }
    }
}

impl StdError for ProviderError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// A configuration that can't be used: where it stands and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct ConfigError {
    place: String,
    problem: String,
}

impl ConfigError {
    /// An error at `place`: a variable, or a file with line and column.
    pub fn new(place: impl Into<String>, problem: impl fmt::Display) -> Self {
        Self {
            place: place.into(),
            problem: problem.to_string(),
        }
    }

    /// The variable or file position that it is about.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// What is wrong there and what would be right.
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

// === how the parts of a message read ===

struct Age(Duration);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() {
            return Ok(());
        }
        write!(f, " (answer is {} old)", Rounded(self.0))
    }
}

struct Rounded(Duration);

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounded = Duration::from_millis(self.0.as_millis() as u64);
        humantime::format_duration(rounded).fmt(f)
    }
}

struct Of<'a>(&'a Option<ServiceName>);

impl fmt::Display for Of<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(service) => write!(f, "service {service:?}: "),
            None => Ok(()),
        }
    }
}

struct Cause<'a>(&'a Option<ProviderError>);

impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(cause) => write!(f, ": {}", cause.message()),
            None => Ok(()),
        }
    }
}
