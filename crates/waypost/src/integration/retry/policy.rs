//! Which attempts a request gets.

use std::time::Duration;

use waypost_core::InstanceId;

use super::pick::ATTEMPTS;

/// The default time limit of an attempt; Envoy has the same default for a request.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(15);

/// Which attempts a request gets: how many, how long each may take, and whether a response from an
/// overloaded instance, or a slow response, leads to another attempt.
///
/// A request that failed without a response is sent to another instance if it was never sent, or if its
/// method is idempotent (RFC 9110, section 9.2.2) and its body can be sent again. All attempts after the
/// first, hedges included, are limited by the [`RetryBudget`](super::RetryBudget).
///
/// ```
/// use std::time::Duration;
///
/// use waypost::integration::retry::RetryPolicy;
///
/// let policy = RetryPolicy::new()
///     .attempt_timeout(Duration::from_secs(2))
///     .retry_rejected(Duration::from_secs(1))     // 429 and 503, if Retry-After is at most 1 s
///     .hedge_after(Duration::from_millis(200));   // a second attempt if the first is slow
/// # let _ = policy;
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    pub(super) attempts: usize,
    pub(super) attempt_timeout: Option<Duration>,
    pub(super) longest_pause: Option<Duration>,
    pub(super) hedge_after: Option<Duration>,
}

impl RetryPolicy {
    /// The default: three attempts of at most 15 s each, no retries after a response, no hedging.
    pub fn new() -> Self {
        Self {
            attempts: ATTEMPTS,
            attempt_timeout: Some(ATTEMPT_TIMEOUT),
            longest_pause: None,
            hedge_after: None,
        }
    }

    /// The number of attempts, the first included. 3 by default; 0 counts as 1, which means no retries.
    #[must_use]
    pub fn attempts(mut self, attempts: usize) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// The time limit of one attempt, until the head of the response arrives. An attempt that takes
    /// longer fails, so an instance that hangs is ejected like one that refuses connections. 15 s by
    /// default; `None` means no limit, for responses that begin late, such as those of long polling.
    #[must_use]
    pub fn attempt_timeout(mut self, limit: impl Into<Option<Duration>>) -> Self {
        self.attempt_timeout = limit.into();
        self
    }

    /// Sends an idempotent request again after the response 429 or 503. If the response has
    /// `Retry-After`, the next attempt waits for that time; if that is longer than `longest_pause`, the
    /// response is returned as it is. Without `Retry-After`, the pause is 25 ms before the second attempt
    /// and doubles with each further one, less a random part of up to half.
    ///
    /// Off by default: what best helps an overloaded service is fewer requests.
    #[must_use]
    pub fn retry_rejected(mut self, longest_pause: Duration) -> Self {
        self.longest_pause = Some(longest_pause);
        self
    }

    /// Sends an idempotent request to a second instance as well if the first has not responded after this
    /// time, and to a third after twice the time, up to the number of [attempts](Self::attempts). The
    /// first response is used, and the other attempts are cancelled: they count as abandoned by their
    /// caller (see [`Lease`](crate::Lease)), so a slow instance is used less by strategies that consider
    /// latency, and one that hangs is ejected.
    ///
    /// Choose about the 95th percentile of the latency, so that 5 % of the requests are sent twice (Dean
    /// and Barroso, "The Tail at Scale", 2013). Off by default.
    #[must_use]
    pub fn hedge_after(mut self, delay: Duration) -> Self {
        self.hedge_after = Some(delay);
        self
    }

    /// The pause before the next attempt after a response that refused the request, where `retry_after`
    /// is the time that the response asks for. `None` if the response should be returned.
    pub(super) fn pause(&self, retry_after: Option<Duration>, attempts: usize) -> Option<Duration> {
        let longest = self.longest_pause?;
        let doublings = attempts.saturating_sub(1).min(16) as u32;
        let backoff = || {
            let full = Duration::from_millis(25) * 2_u32.pow(doublings);
            full.mul_f64(1.0 - 0.5 * fastrand::f64()).min(longest)
        };
        let pause = retry_after.unwrap_or_else(backoff);
        (pause <= longest).then_some(pause)
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::new()
    }
}

/// The head of the response did not arrive within [`RetryPolicy::attempt_timeout`].
#[derive(Clone, Debug, thiserror::Error)]
#[error("no response from {instance} within {}", humantime::format_duration(*.after))]
#[non_exhaustive]
pub struct AttemptTimeout {
    /// The instance of the last attempt.
    pub instance: InstanceId,
    /// The time limit.
    pub after: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_honoured_up_to_the_longest_pause() {
        let millis = Duration::from_millis;
        let policy = RetryPolicy::new().retry_rejected(millis(1_000));
        assert_eq!(policy.pause(Some(millis(900)), 1), Some(millis(900)));
        assert_eq!(policy.pause(Some(millis(1_001)), 1), None);
        assert_eq!(policy.pause(Some(Duration::ZERO), 1), Some(Duration::ZERO));
        for (attempts, most) in [(1, 25), (2, 50), (3, 100), (60, 1_000)] {
            let pause = policy.pause(None, attempts).unwrap();
            assert!(pause <= millis(most) && pause * 2 >= millis(most).min(millis(100)));
        }
        assert_eq!(RetryPolicy::new().pause(None, 1), None);
    }
}
