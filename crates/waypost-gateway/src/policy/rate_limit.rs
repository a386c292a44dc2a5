//! Limits the rate of requests with a token bucket per client, header or route.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::header::HeaderName;
use http::{HeaderMap, StatusCode};
use tokio::time::Instant;

use crate::problem::Problem;

/// Keys are distributed over this many locks, so that cores rarely wait for each other.
const SHARDS: usize = 16;
/// The number of keys per shard at which full buckets are removed.
const SHARD_KEYS: usize = 4096;

/// Determines which requests are counted together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RateKey {
    /// Requests from the same address.
    Client,
    /// Requests with the same value of a header, such as an API key. Requests without the header are
    /// counted together.
    Header(HeaderName),
    /// Requests with the API key of the same name.
    ApiKey,
    /// All requests of the route.
    All,
}

/// A limit of one route.
///
/// Uses the generic cell rate algorithm: a bucket is represented by the time at which it will be full.
#[derive(Debug)]
pub(crate) struct RateLimit {
    key: RateKey,
    /// The time until one request is allowed again.
    interval: Duration,
    /// How far in the future the time of a bucket may be.
    tolerance: Duration,
    epoch: Instant,
    shards: [Mutex<HashMap<u64, Duration>>; SHARDS],
}

impl RateLimit {
    /// Allows `requests` in each `period`, and up to `burst` at once.
    pub(crate) fn new(requests: u32, period: Duration, burst: u32, key: RateKey) -> Self {
        let interval = period / requests.max(1);
        Self {
            key,
            interval,
            tolerance: interval * burst.max(1).saturating_sub(1),
            epoch: Instant::now(),
            shards: Default::default(),
        }
    }

    /// Counts a request. `key` is the name of its API key.
    ///
    /// # Errors
    /// A 429 with the time after which the next one is allowed.
    pub(crate) fn check(
        &self,
        headers: &HeaderMap,
        client: IpAddr,
        key: Option<&str>,
    ) -> Result<(), Problem> {
        let hash = match &self.key {
            RateKey::All => 0,
            RateKey::ApiKey => hash(&key),
            RateKey::Client => hash(&client.to_canonical()),
            RateKey::Header(name) => {
                hash(&headers.get(name).map(|value| value.as_bytes().to_vec()))
            }
        };
        let now = self.epoch.elapsed();
        match self.take(hash, now) {
            Ok(()) => Ok(()),
            Err(wait) => {
                let seconds = wait.as_secs_f64().ceil() as u64;
                let detail = format!("too many requests; the next is allowed in {seconds} s");
                let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, "rate_limited", detail);
                Err(problem.retry_after(seconds))
            }
        }
    }

    /// Takes a token, or returns the time until there is one.
    fn take(&self, hash: u64, now: Duration) -> Result<(), Duration> {
        let shard = &self.shards[hash as usize % SHARDS];
        let mut buckets = shard.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= SHARD_KEYS {
            buckets.retain(|_, full_at| *full_at > now);
        }
        let full_at = buckets.get(&hash).copied().unwrap_or(now).max(now);
        let ahead = full_at - now;
        if ahead > self.tolerance {
            return Err(ahead - self.tolerance);
        }
        buckets.insert(hash, full_at + self.interval);
        Ok(())
    }
}

fn hash(key: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::problem::ErrorFormat;

    #[tokio::test]
    async fn a_burst_is_allowed_and_then_the_rate() {
        let limit = RateLimit::new(10, Duration::from_secs(1), 5, RateKey::All);
        let at = Duration::from_millis;
        let allowed = (0..20).filter(|_| limit.take(0, at(0)).is_ok()).count();
        assert_eq!(allowed, 5);
        assert_eq!(limit.take(0, at(0)), Err(at(100)));
        assert_eq!(limit.take(0, at(100)), Ok(()));
        assert!(limit.take(0, at(100)).is_err());
        let allowed = (0..1000)
            .filter(|n| limit.take(0, at(101 + n * 10)).is_ok())
            .count();
        assert!((99..=101).contains(&allowed), "{allowed} in 10 s");
        let allowed = (0..20)
            .filter(|_| limit.take(0, at(60_000)).is_ok())
            .count();
        assert_eq!(allowed, 5, "no more than the burst after a pause");
    }

    #[tokio::test]
    async fn buckets_are_forgotten_once_they_are_full_and_no_sooner() {
        let limit = RateLimit::new(1, Duration::from_secs(10), 1, RateKey::All);
        let at = Duration::from_secs;
        let in_one_shard = |n: usize| (n * SHARDS) as u64;
        for n in 0..SHARD_KEYS {
            assert_eq!(limit.take(in_one_shard(n), at(0)), Ok(()));
        }
        let another = in_one_shard(SHARD_KEYS);
        assert_eq!(limit.take(another, at(5)), Ok(()));
        assert_eq!(limit.take(in_one_shard(0), at(5)), Err(at(5)));
        assert_eq!(limit.take(in_one_shard(1), at(10)), Ok(()));
        assert_eq!(limit.take(another, at(10)), Err(at(5)));
        assert_eq!(limit.shards[0].lock().unwrap().len(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn keys_have_buckets_of_their_own() {
        let by_key = RateKey::Header(HeaderName::from_static("x-key"));
        let limit = RateLimit::new(1, Duration::from_secs(3600), 1, by_key);
        let client = "192.0.2.1".parse().unwrap();
        let mut one = HeaderMap::new();
        one.insert("x-key", "one".parse().unwrap());
        assert!(limit.check(&one, client, None).is_ok());
        assert!(limit.check(&HeaderMap::new(), client, None).is_ok());
        let problem = limit.check(&one, client, None).unwrap_err();
        assert_eq!(problem.status, StatusCode::TOO_MANY_REQUESTS);
        assert!(problem.detail.contains("in 3600 s"), "{}", problem.detail);
        let response = problem.into_response(ErrorFormat::Json);
        assert_eq!(response.headers()[http::header::RETRY_AFTER], "3600");
        let mut other = HeaderMap::new();
        other.insert("x-key", "two".parse().unwrap());
        assert!(limit.check(&other, client, None).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_counts_as_one_key_follows_from_the_limit() {
        let none = HeaderMap::new();
        for (by, [same, other]) in [
            (
                RateKey::Client,
                [("::ffff:192.0.2.1", "b"), ("192.0.2.2", "a")],
            ),
            (RateKey::ApiKey, [("192.0.2.2", "a"), ("192.0.2.1", "b")]),
        ] {
            let limit = RateLimit::new(1, Duration::from_secs(1), 1, by.clone());
            let check = |client: &str, key| limit.check(&none, client.parse().unwrap(), Some(key));
            assert!(check("192.0.2.1", "a").is_ok());
            assert!(check(same.0, same.1).is_err(), "{by:?}");
            assert!(check(other.0, other.1).is_ok(), "{by:?}");
        }
        let limit = RateLimit::new(1, Duration::from_secs(1), 1, RateKey::All);
        let check = |client: &str| limit.check(&none, client.parse().unwrap(), Some(client));
        assert!(check("192.0.2.1").is_ok());
        assert!(check("192.0.2.2").is_err(), "one bucket for all");
    }
}
