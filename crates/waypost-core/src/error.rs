//! Errors: one variant per cause, with the details that a caller needs to handle it.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::model::{Invalid, ServiceName};
use crate::secrets::mask_secrets;

/// Why a service could not be found, called or registered.
///
/// Clones are cheap and share their content, so that all callers that waited for one failed attempt
/// can get the same error.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The provider answered that it doesn't know the service.
    #[error("service {service:?} is unknown to {provider}{}", Age(*.age))]
    UnknownService {
        /// The service.
        service: ServiceName,
        /// The provider that answered, with its address.
        provider: Arc<str>,
        /// The age of the answer; zero while the provider's watch is live.
        age: Duration,
    },
    /// The service is known, but has no instances.
    #[error("service {service:?} has no instances, according to {provider}{}", Age(*.age))]
    NoInstances {
        /// The service.
        service: ServiceName,
        /// The provider that answered, with its address.
        provider: Arc<str>,
        /// The age of the answer; zero while the provider's watch is live.
        age: Duration,
    },
    /// The service has instances, but all of them are critical.
    #[error(
        "{}, according to {provider}{}",
        NotHealthy(service, *.instances),
        Age(*.age)
    )]
    NoneHealthy {
        /// The service.
        service: ServiceName,
        /// The provider that answered, with its address.
        provider: Arc<str>,
        /// The age of the answer; zero while the provider's watch is live.
        age: Duration,
        /// The number of instances.
        instances: usize,
    },
    /// The service has instances, but none meets the caller's conditions.
    #[error(
        "no instance of service {service:?} has {wanted}; {available}, according to {provider}{}",
        Age(*.age)
    )]
    NoMatch {
        /// The service.
        service: ServiceName,
        /// The provider that answered, with its address.
        provider: Arc<str>,
        /// The age of the answer; zero while the provider's watch is live.
        age: Duration,
        /// The conditions, such as `tag "canary"`.
        wanted: Arc<str>,
        /// What the instances have instead, such as `its 3 instances have tags "blue", "green"`.
        available: Arc<str>,
    },
    /// The provider has been failing for longer than `max_stale`, the time for which the directory
    /// serves old answers.
    #[error(
        "{}the last answer from {provider} is too old: {}{}",
        Subject(.service),
        Rounded(*.age),
        Cause(.cause)
    )]
    Stale {
        /// The service, if the call was about one.
        service: Option<ServiceName>,
        /// The provider that answered, with its address.
        provider: Arc<str>,
        /// The age of the last answer.
        age: Duration,
        /// The provider's current failure.
        cause: Option<ProviderError>,
    },
    /// The registry can't be reached or gives no valid response, and there is no earlier answer.
    #[error("{}registry unreachable: {cause}", Subject(.service))]
    Unreachable {
        /// The service, if the call was about one.
        service: Option<ServiceName>,
        /// The failed attempt.
        cause: ProviderError,
    },
    /// The registry refuses the request because valid credentials or a permission are missing.
    #[error("{}not authorised: {cause}", Subject(.service))]
    NotAuthorised {
        /// The service, if the call was about one.
        service: Option<ServiceName>,
        /// The registry's refusal.
        cause: ProviderError,
    },
    /// No answer came within the time that the caller or the provider allows.
    #[error(
        "{}no answer from {provider} in {}{}",
        Subject(.service),
        humantime::format_duration(*.waited),
        Cause(.cause)
    )]
    TimedOut {
        /// The service, if the call was about one.
        service: Option<ServiceName>,
        /// The provider, with its address.
        provider: Arc<str>,
        /// The time waited.
        waited: Duration,
        /// The provider's own timeout, if it reported one.
        cause: Option<ProviderError>,
    },
    /// The provider doesn't support the operation.
    #[error("{0}")]
    Unsupported(ProviderError),
    /// The registry understood the request and rejected it.
    #[error("{0}")]
    Rejected(ProviderError),
    /// A function of `waypost::blocking` was called inside an async runtime.
    #[error(
        "blocking call inside an async runtime: it would block a worker thread; \
         use waypost's async functions there"
    )]
    WithinRuntime,
    /// An argument is not valid.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The configuration is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl Error {
    /// The error of a call about `service` that failed because the provider's attempt failed.
    pub fn from_provider(service: Option<ServiceName>, cause: &ProviderError) -> Self {
        let cause = cause.clone();
        match cause.kind {
            ProviderErrorKind::Unreachable
            | ProviderErrorKind::InvalidResponse
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
            ProviderErrorKind::Misconfigured => {
                let source = cause
                    .source
                    .as_deref()
                    .map(|source| source as &dyn StdError);
                let error = source.and_then(|source| source.downcast_ref::<ConfigError>());
                Self::Config(error.cloned().unwrap_or_else(|| {
                    ConfigError::new(cause.provider.to_string(), &cause.message)
                }))
            }
        }
    }

    /// Whether the same call may succeed later without a change of code or configuration.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NoInstances { .. }
            | Self::NoneHealthy { .. }
            | Self::NoMatch { .. }
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

    /// The provider that the error came from, if any.
    pub fn provider(&self) -> Option<&str> {
        match self {
            Self::UnknownService { provider, .. }
            | Self::NoInstances { provider, .. }
            | Self::NoneHealthy { provider, .. }
            | Self::NoMatch { provider, .. }
            | Self::Stale { provider, .. }
            | Self::TimedOut { provider, .. } => Some(provider),
            Self::Unreachable { cause, .. }
            | Self::NotAuthorised { cause, .. }
            | Self::Unsupported(cause)
            | Self::Rejected(cause) => Some(cause.provider()),
            Self::WithinRuntime | Self::Invalid(_) | Self::Config(_) => None,
        }
    }

    /// The age of the answer that caused this error; `None` if there was no answer.
    pub fn age(&self) -> Option<Duration> {
        match self {
            Self::UnknownService { age, .. }
            | Self::NoInstances { age, .. }
            | Self::NoneHealthy { age, .. }
            | Self::NoMatch { age, .. }
            | Self::Stale { age, .. } => Some(*age),
            _ => None,
        }
    }

    /// Whether the provider answered that the service has no usable instance: it is unknown, has no
    /// instances, or none of them is healthy or meets the conditions. A caller may then use a fallback.
    pub fn is_no_usable_instance(&self) -> bool {
        matches!(
            self,
            Self::UnknownService { .. }
                | Self::NoInstances { .. }
                | Self::NoneHealthy { .. }
                | Self::NoMatch { .. }
        )
    }
}

impl From<ProviderError> for Error {
    fn from(cause: ProviderError) -> Self {
        Self::from_provider(None, &cause)
    }
}

/// One failed attempt of a provider. It says nothing about the state of any instance.
///
/// ```
/// use std::io;
/// use std::time::Duration;
/// use waypost_core::{Error, ProviderError, ProviderErrorKind};
///
/// let refused = io::Error::new(io::ErrorKind::ConnectionRefused, "connection refused");
/// let error = ProviderError::unreachable("zookeeper at zk:2181", "can't connect")
///     .with_source(refused);
/// assert_eq!(
///     error.to_string(),
///     "zookeeper at zk:2181: can't connect (connection refused)"
/// );
///
/// // The kind decides which `Error` a caller gets, and whether it is worth a retry.
/// let after = Duration::from_secs(5);
/// let error = ProviderError::new(
///     "zookeeper at zk:2181",
///     ProviderErrorKind::TimedOut { after },
///     "no response",
/// );
/// assert!(Error::from(error).is_retryable());
/// ```
#[derive(Clone, Debug)]
pub struct ProviderError {
    provider: Arc<str>,
    kind: ProviderErrorKind,
    message: Arc<str>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

/// The kind of a [`ProviderError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ProviderErrorKind {
    /// No connection, a broken connection, or a temporary refusal (HTTP 429, 5xx).
    Unreachable,
    /// No response in time.
    TimedOut {
        /// The time waited.
        after: Duration,
    },
    /// Credentials are missing or invalid, or lack a permission (HTTP 401, 403).
    NotAuthorised,
    /// The response is malformed.
    InvalidResponse,
    /// The response says that all instances are gone; it is not trusted until it has been repeated
    /// for some time. A provider reports this if the registry was restored from an older state, which
    /// takes the longest to recover.
    Unconfirmed,
    /// The registry understood the request and rejected it (HTTP 4xx other than the above).
    Rejected,
    /// The provider doesn't support the operation.
    Unsupported,
    /// The settings of this service are not valid; those of others may be.
    Misconfigured,
}

impl ProviderError {
    /// A failure of the provider described by `provider` ([`Provider::describe`]). The message says
    /// what happened and, if known, how to fix it.
    ///
    /// [`Provider::describe`]: crate::provider::Provider::describe
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

    /// A failure of kind [`Unreachable`](ProviderErrorKind::Unreachable).
    pub fn unreachable(provider: impl Into<Arc<str>>, message: impl Into<Arc<str>>) -> Self {
        Self::new(provider, ProviderErrorKind::Unreachable, message)
    }

    /// A failure of kind [`Unsupported`](ProviderErrorKind::Unsupported). The message says why, and
    /// what to do instead.
    ///
    /// ```
    /// # use waypost_core::{ProviderError, ProviderErrorKind};
    /// let error = ProviderError::unsupported("DNS", "DNS has no registration; edit the zone");
    /// assert_eq!(error.kind(), ProviderErrorKind::Unsupported);
    /// ```
    pub fn unsupported(provider: impl Into<Arc<str>>, message: impl Into<Arc<str>>) -> Self {
        Self::new(provider, ProviderErrorKind::Unsupported, message)
    }

    /// A failure of kind [`Misconfigured`](ProviderErrorKind::Misconfigured): a setting of the service
    /// that is looked up is not valid. Its callers get [`Error::Config`].
    ///
    /// ```
    /// # use waypost_core::{ConfigError, Error, ProviderError};
    /// let error = ConfigError::new("SERVICE_AUTH_PORT", "\"http\" is not a port");
    /// let error = ProviderError::misconfigured("environment variables", error);
    /// assert!(matches!(Error::from(error), Error::Config(_)));
    /// ```
    pub fn misconfigured(provider: impl Into<Arc<str>>, error: ConfigError) -> Self {
        let kind = ProviderErrorKind::Misconfigured;
        Self::new(provider, kind, "a setting is not valid").with_source(error)
    }

    /// Sets the underlying error. `Display` prints the innermost one in parentheses.
    #[must_use]
    pub fn with_source(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.source = Some(Arc::new(source));
        self
    }

    /// The description of the provider, with its address.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// The kind of failure.
    pub fn kind(&self) -> ProviderErrorKind {
        self.kind
    }

    /// What happened, without the provider and the underlying error.
    pub fn message(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for ProviderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.provider, self.message)?;
        // The innermost error is the one that names the cause ("connection refused").
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

/// An invalid setting: where it is, and what is wrong with it.
///
/// ```
/// # use waypost_core::ConfigError;
/// let error = ConfigError::new("ZOOKEEPER_ADDR", "\"zk:x\" has no valid port; use host:port");
/// assert_eq!(error.location(), "ZOOKEEPER_ADDR");
/// assert_eq!(
///     error.to_string(),
///     "ZOOKEEPER_ADDR: \"zk:x\" has no valid port; use host:port"
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{location}: {problem}")]
pub struct ConfigError {
    location: String,
    problem: String,
}

impl ConfigError {
    /// An error at `location`: an environment variable, or a file, possibly with line and column.
    /// Secrets in URLs are masked; see [`mask_secrets`].
    pub fn new(location: impl Into<String>, problem: impl fmt::Display) -> Self {
        Self {
            location: location.into(),
            problem: mask_secrets(&problem.to_string()).into_owned(),
        }
    }

    /// The environment variable, or the file and the position in it.
    pub fn location(&self) -> &str {
        &self.location
    }

    /// What is wrong, and what would be valid instead.
    pub fn problem(&self) -> &str {
        &self.problem
    }
}

// === Parts of the messages ===

/// The age of an answer; empty for a live one.
struct Age(Duration);

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() {
            return Ok(());
        }
        write!(f, " (the answer is {} old)", Rounded(self.0))
    }
}

/// A duration in whole milliseconds.
struct Rounded(Duration);

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rounded = Duration::from_millis(self.0.as_millis() as u64);
        humantime::format_duration(rounded).fmt(f)
    }
}

/// That none of a service's instances is healthy.
struct NotHealthy<'a>(&'a ServiceName, usize);

impl fmt::Display for NotHealthy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self(service, 1) => write!(f, "the instance of service {service:?} is not healthy"),
            Self(service, count) => {
                write!(
                    f,
                    "none of the {count} instances of service {service:?} is healthy"
                )
            }
        }
    }
}

/// The service that a message is about, as its prefix.
struct Subject<'a>(&'a Option<ServiceName>);

impl fmt::Display for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(service) => write!(f, "service {service:?}: "),
            None => Ok(()),
        }
    }
}

/// The message of a failure, as a suffix.
struct Cause<'a>(&'a Option<ProviderError>);

impl fmt::Display for Cause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(cause) => write!(f, ": {}", cause.message()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn auth() -> ServiceName {
        ServiceName::new("auth").unwrap()
    }

    fn failure(kind: ProviderErrorKind) -> ProviderError {
        ProviderError::new("consul at c", kind, "no")
    }

    #[test]
    fn the_kind_of_a_failure_decides_the_error_and_whether_a_retry_may_help() {
        let after = Duration::from_millis(1500);
        for (kind, text, is_retryable, has_provider) in [
            (
                ProviderErrorKind::Unreachable,
                "service \"auth\": registry unreachable: consul at c: no",
                true,
                true,
            ),
            (
                ProviderErrorKind::InvalidResponse,
                "service \"auth\": registry unreachable: consul at c: no",
                true,
                true,
            ),
            (
                ProviderErrorKind::Unconfirmed,
                "service \"auth\": registry unreachable: consul at c: no",
                true,
                true,
            ),
            (
                ProviderErrorKind::TimedOut { after },
                "service \"auth\": no answer from consul at c in 1s 500ms: no",
                true,
                true,
            ),
            (
                ProviderErrorKind::NotAuthorised,
                "service \"auth\": not authorised: consul at c: no",
                false,
                true,
            ),
            (ProviderErrorKind::Rejected, "consul at c: no", false, true),
            (
                ProviderErrorKind::Unsupported,
                "consul at c: no",
                false,
                true,
            ),
            (
                ProviderErrorKind::Misconfigured,
                "consul at c: no",
                false,
                false,
            ),
        ] {
            let error = Error::from_provider(Some(auth()), &failure(kind));
            assert_eq!(error.to_string(), text, "{kind:?}");
            assert_eq!(error.is_retryable(), is_retryable, "{kind:?}");
            assert_eq!(
                error.provider(),
                has_provider.then_some("consul at c"),
                "{kind:?}"
            );
            assert_eq!(error.age(), None);
            assert!(!error.is_no_usable_instance());
        }
        let setting = ConfigError::new("PORT", "\"x\" is not a port");
        let error = Error::from(ProviderError::misconfigured("environment", setting));
        assert_eq!(error.to_string(), "PORT: \"x\" is not a port");
        let without_service = Error::from(failure(ProviderErrorKind::Unreachable));
        assert_eq!(
            without_service.to_string(),
            "registry unreachable: consul at c: no"
        );
    }

    #[test]
    fn an_answer_without_a_usable_instance_has_its_age_unless_it_is_live() {
        let provider = || Arc::<str>::from("consul at c");
        let age = Duration::from_micros(2_345_678);
        let service = auth;
        let old = " (the answer is 2s 345ms old)";
        for (age, suffix) in [(age, old), (Duration::ZERO, "")] {
            let unknown = Error::UnknownService {
                service: service(),
                provider: provider(),
                age,
            };
            let none = Error::NoInstances {
                service: service(),
                provider: provider(),
                age,
            };
            let unhealthy = |instances| Error::NoneHealthy {
                service: service(),
                provider: provider(),
                age,
                instances,
            };
            let no_match = Error::NoMatch {
                service: service(),
                provider: provider(),
                age,
                wanted: "tag \"a\"".into(),
                available: "its only instance has no tag".into(),
            };
            for (error, text, is_retryable) in [
                (unknown, "service \"auth\" is unknown to consul at c", false),
                (
                    none,
                    "service \"auth\" has no instances, according to consul at c",
                    true,
                ),
                (
                    unhealthy(1),
                    "the instance of service \"auth\" is not healthy, according to consul at c",
                    true,
                ),
                (
                    unhealthy(3),
                    "none of the 3 instances of service \"auth\" is healthy, according to consul at c",
                    true,
                ),
                (
                    no_match,
                    "no instance of service \"auth\" has tag \"a\"; its only instance has no tag, \
                     according to consul at c",
                    true,
                ),
            ] {
                assert_eq!(error.to_string(), format!("{text}{suffix}"));
                assert_eq!(error.is_retryable(), is_retryable, "{error}");
                assert_eq!(
                    (error.provider(), error.age()),
                    (Some("consul at c"), Some(age))
                );
                assert!(error.is_no_usable_instance(), "{error}");
            }
        }
    }

    #[test]
    fn a_stale_answer_names_the_current_failure() {
        let stale = |service: Option<ServiceName>, cause: Option<ProviderError>| Error::Stale {
            service,
            provider: "consul at c".into(),
            age: Duration::from_secs(90),
            cause,
        };
        let text = "the last answer from consul at c is too old: 1m 30s";
        assert_eq!(stale(None, None).to_string(), text);
        let error = stale(Some(auth()), Some(failure(ProviderErrorKind::Unreachable)));
        assert_eq!(error.to_string(), format!("service \"auth\": {text}: no"));
        assert!(error.is_retryable() && !error.is_no_usable_instance());
        assert_eq!(error.age(), Some(Duration::from_secs(90)));
    }

    #[test]
    fn a_failure_ends_with_its_innermost_cause() {
        let inner = io::Error::new(io::ErrorKind::ConnectionRefused, "connection refused");
        let middle = ProviderError::unreachable("middle", "x").with_source(inner);
        let outer = ProviderError::unreachable("outer", "can't connect").with_source(middle);
        assert_eq!(
            outer.to_string(),
            "outer: can't connect (connection refused)"
        );
        assert_eq!(
            (outer.provider(), outer.message()),
            ("outer", "can't connect")
        );
        assert!(outer.source().is_some());
        assert_eq!(
            failure(ProviderErrorKind::Rejected).to_string(),
            "consul at c: no"
        );
    }

    #[test]
    fn an_error_that_no_provider_has_caused_has_none() {
        let invalid = Invalid::new("host", "a b", "use a name");
        for error in [Error::WithinRuntime, Error::Invalid(invalid)] {
            assert_eq!((error.provider(), error.age()), (None, None));
            assert!(!error.is_retryable());
        }
        let setting = ConfigError::new("URL", "http://me:secret@a is not valid");
        assert_eq!(setting.location(), "URL");
        assert!(!setting.problem().contains("secret"), "{setting}");
    }
}
