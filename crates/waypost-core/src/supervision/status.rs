//! The state of a provider as its supervisor sees it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::error::ProviderError;

/// Counters and the latest result of one provider, over all of its watches.
#[derive(Clone, Debug)]
pub struct ProviderStatus {
    pub(super) provider: Arc<str>,
    pub(super) watches: usize,
    pub(super) failing: usize,
    pub(super) last_success: Option<Instant>,
    pub(super) last_error: Option<(Instant, ProviderError)>,
    pub(super) answers: u64,
    pub(super) failures: u64,
    pub(super) reconnects: u64,
}

impl ProviderStatus {
    pub(super) fn new(provider: Arc<str>) -> Self {
        Self {
            provider,
            watches: 0,
            failing: 0,
            last_success: None,
            last_error: None,
            answers: 0,
            failures: 0,
            reconnects: 0,
        }
    }

    /// The provider, with its address.
    pub fn provider(&self) -> &str {
        &self.provider
    }

    /// The number of running watches, one per service in use.
    pub fn watches(&self) -> usize {
        self.watches
    }

    /// How many of them are failing now.
    pub fn failing(&self) -> usize {
        self.failing
    }

    /// When the provider last answered; `None` if it never has.
    pub fn last_success(&self) -> Option<Instant> {
        self.last_success
    }

    /// The age of the provider's data: the time since its last answer while a watch is failing or
    /// none is running, otherwise zero. `None` before the first answer.
    pub fn age(&self) -> Option<Duration> {
        let last = self.last_success?;
        Some(if self.failing == 0 && self.watches > 0 {
            Duration::ZERO
        } else {
            last.elapsed()
        })
    }

    /// The latest failure, even if the provider has recovered since.
    pub fn last_error(&self) -> Option<&ProviderError> {
        self.last_error.as_ref().map(|(_, error)| error)
    }

    /// When the latest failure happened.
    pub fn last_error_at(&self) -> Option<Instant> {
        self.last_error.as_ref().map(|(at, _)| *at)
    }

    /// The number of answers so far, including those without a change.
    pub fn answers(&self) -> u64 {
        self.answers
    }

    /// The number of failed attempts so far.
    pub fn failures(&self) -> u64 {
        self.failures
    }

    /// How many times a watch was restarted after it had ended.
    pub fn reconnects(&self) -> u64 {
        self.reconnects
    }
}

impl fmt::Display for ProviderStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.provider)?;
        match (self.failing, self.last_success) {
            (0, None) => f.write_str("no answer yet"),
            (0, Some(_)) if self.watches == 0 => f.write_str("no watch is running"),
            (0, Some(_)) if self.watches == 1 => f.write_str("available; 1 watch"),
            (0, Some(_)) => write!(f, "available; {} watches", self.watches),
            (failing, _) => {
                write!(f, "{failing} of {} watches failing", self.watches)?;
                match self.last_error() {
                    Some(error) => write!(f, ": {}", error.message()),
                    None => Ok(()),
                }
            }
        }
    }
}
