//! How old an answer is, and whether its provider is failing.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use waypost_core::{Error, ProviderError, ServiceName};

/// How far an answer can be trusted: its provider, its age, and whether the provider is failing.
#[derive(Clone, Debug)]
pub struct Freshness {
    pub(super) provider: Arc<str>,
    pub(super) generation: u64,
    pub(super) confirmed_at: Option<Instant>,
    pub(super) failure: Option<Failure>,
    /// The age from which the answer must not be used.
    pub(super) max_stale: Option<Duration>,
}

/// Why the provider has no newer answer.
#[derive(Clone, Debug)]
pub struct Failure {
    pub(super) since: Instant,
    pub(super) attempts: u32,
    pub(super) error: ProviderError,
}

impl Failure {
    /// When the provider began to fail.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// The number of failed attempts in a row.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The error of the latest attempt.
    pub fn error(&self) -> &ProviderError {
        &self.error
    }
}

impl Freshness {
    pub(crate) fn never(provider: Arc<str>) -> Self {
        Self {
            provider,
            generation: 0,
            confirmed_at: None,
            failure: None,
            max_stale: None,
        }
    }

    /// The freshness after an answer. The generation increases only if the content has changed.
    pub(crate) fn confirmed(&self, changed: bool) -> Self {
        Self {
            provider: Arc::clone(&self.provider),
            generation: self.generation + u64::from(changed),
            confirmed_at: Some(Instant::now()),
            failure: None,
            max_stale: self.max_stale,
        }
    }

    /// The freshness after a failed attempt.
    pub(crate) fn failed(&self, error: ProviderError) -> Self {
        let (since, attempts) = match &self.failure {
            Some(earlier) => (earlier.since, earlier.attempts.saturating_add(1)),
            None => (Instant::now(), 1),
        };
        Self {
            failure: Some(Failure {
                since,
                attempts,
                error,
            }),
            ..self.clone()
        }
    }

    /// The provider, with its address, such as `consul at http://127.0.0.1:8500`.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// Incremented by each answer that changes the content; 0 before the first.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether the provider has answered, or failed to.
    pub(crate) fn is_settled(&self) -> bool {
        self.is_known() || self.failure.is_some()
    }

    /// Whether the provider has answered at all.
    pub fn is_known(&self) -> bool {
        self.confirmed_at.is_some()
    }

    /// Whether this is the last known good answer of a provider that is failing.
    pub fn is_stale(&self) -> bool {
        self.is_known() && self.failure.is_some()
    }

    /// The age of the answer: the time since the provider last confirmed it. Zero while its watch is
    /// live, since a change would have been reported. `None` before the first answer.
    pub fn age(&self) -> Option<Duration> {
        let confirmed_at = self.confirmed_at?;
        Some(match self.failure {
            Some(_) => confirmed_at.elapsed(),
            None => Duration::ZERO,
        })
    }

    /// When the provider last confirmed the answer.
    pub(crate) fn confirmed_at(&self) -> Option<Instant> {
        self.confirmed_at
    }

    /// Whether it is older than [`max_stale`](crate::directory::DirectoryOptions::max_stale) allows.
    pub fn is_expired(&self) -> bool {
        match (self.max_stale, &self.failure) {
            (Some(max), Some(_)) => self.age().is_some_and(|age| age > max),
            _ => false,
        }
    }

    /// Whether it will become too old if the provider keeps failing.
    pub(crate) fn expires(&self) -> bool {
        self.max_stale.is_some() && self.failure.is_some()
    }

    /// The error to return once the answer has expired.
    #[cold]
    pub(crate) fn expired(&self, service: Option<ServiceName>) -> Error {
        Error::Stale {
            service,
            provider: Arc::clone(&self.provider),
            age: self.age().unwrap_or_default(),
            cause: self.failure.as_ref().map(|failure| failure.error.clone()),
        }
    }

    /// The provider's failure since the last answer, if there is one.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
}
