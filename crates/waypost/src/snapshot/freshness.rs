use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use waypost_core::{Error, ProviderError, ServiceName};

/// How much an answer can be trusted: who gave it, when, and what has gone wrong since.
#[derive(Clone, Debug)]
pub struct Freshness {
    pub(super) provider: Arc<str>,
    pub(super) generation: u64,
    pub(super) confirmed_at: Option<Instant>,
    pub(super) failure: Option<Failure>,
    /// The age from which on it is not to be used.
    pub(super) max_stale: Option<Duration>,
}

/// Why the provider can't say anything newer.
#[derive(Clone, Debug)]
pub struct Failure {
    pub(super) since: Instant,
    pub(super) attempts: u32,
    pub(super) error: ProviderError,
}

impl Failure {
    /// When the failures began.
    pub fn since(&self) -> Instant {
        self.since
    }

    /// How many attempts in a row have failed.
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// How the latest attempt failed.
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

    /// After an answer; the generation grows only if the answer says something new.
    pub(crate) fn confirmed(&self, news: bool) -> Self {
        Self {
            provider: Arc::clone(&self.provider),
            generation: self.generation + u64::from(news),
            confirmed_at: Some(Instant::now()),
            failure: None,
            max_stale: self.max_stale,
        }
    }

    /// After a failed attempt.
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

    /// The provider that answered, with its address, such as `consul at http://127.0.0.1:8500`.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// Grows by one with every answer that says something new; 0 before the first.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether the provider has answered at all.
    pub fn is_known(&self) -> bool {
        self.confirmed_at.is_some()
    }

    /// Whether this is the last known good answer of a provider that now fails.
    pub fn is_stale(&self) -> bool {
        self.is_known() && self.failure.is_some()
    }

    /// How old the answer may be: the time since the provider last confirmed it. Zero while its
    /// watch is live, since a change would have been told. `None` before the first answer.
    pub fn age(&self) -> Option<Duration> {
        let confirmed_at = self.confirmed_at?;
        Some(match self.failure {
            Some(_) => confirmed_at.elapsed(),
            None => Duration::ZERO,
        })
    }

    /// Whether it is older than [`max_stale`](crate::DirectoryOptions::max_stale) allows.
    pub fn is_expired(&self) -> bool {
        match (self.max_stale, &self.failure) {
            (Some(most), Some(_)) => self.age().is_some_and(|age| age > most),
            _ => false,
        }
    }

    /// Whether it becomes too old if nothing is heard.
    pub(crate) fn expires(&self) -> bool {
        self.max_stale.is_some() && self.failure.is_some()
    }

    /// The error that this is, once expired.
    #[cold]
    pub(crate) fn expired(&self, service: Option<ServiceName>) -> Error {
        Error::Stale {
            service,
            provider: Arc::clone(&self.provider),
            age: self.age().unwrap_or_default(),
            cause: self.failure.as_ref().map(|failure| failure.error.clone()),
        }
    }

    /// What has gone wrong since the last answer, if anything has.
    pub fn failure(&self) -> Option<&Failure> {
        self.failure.as_ref()
    }
}
