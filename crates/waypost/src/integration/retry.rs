//! Picks an instance for each attempt of an HTTP request, and decides whether a failed attempt may be
//! retried. The integrations use this; so can an HTTP client that has none.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use http::Method;
use tower::retry::budget::{Budget, TpsBudget};
use waypost_core::{Error, Instance, InstanceId, Invalid, ServiceAddress};

use crate::balance::{Balancer, Lease, Pick};
use crate::client::ServiceDiscoveryClient;

/// The number of attempts of a request, the first included.
pub const ATTEMPTS: usize = 3;

/// Limits retries to 20 % of the requests of about the last ten seconds, plus one per second, so that
/// they don't multiply the load on a service that is failing. Finagle and Linkerd use the same limits.
///
/// ```
/// use waypost::integration::retry::RetryBudget;
///
/// let budget = RetryBudget::new();
/// budget.deposit();                        // for each request
/// let may_retry = budget.withdraw();       // for each retry
/// # assert!(may_retry);
/// ```
#[derive(Debug)]
pub struct RetryBudget(TpsBudget);

impl RetryBudget {
    /// A budget with its reserve only, since there was no request yet.
    pub fn new() -> Self {
        Self(TpsBudget::new(Duration::from_secs(10), 1, 0.2))
    }

    /// Counts a request.
    pub fn deposit(&self) {
        self.0.deposit();
    }

    /// Whether there may be a retry, which then counts.
    pub fn withdraw(&self) -> bool {
        self.0.withdraw()
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self::new()
    }
}

/// A lease on an instance that has the port and scheme of the address, and the URL to call. Instances
/// in `tried` are avoided if there is another. Waits for the provider's first answer.
///
/// # Errors
/// The same as for [`ServiceDiscoveryClient::discover_service`]; [`Error::Invalid`] if no instance has that port and
/// scheme.
pub async fn lease_for(
    client: &ServiceDiscoveryClient,
    address: &ServiceAddress,
    tried: &[InstanceId],
) -> Result<(Lease, String), Error> {
    let balancer = client.shared_balancer(address.service());
    pick_for(&balancer, address, tried).await
}

/// Whether a request that failed without a response may be retried: if it was never sent, or if its
/// method is idempotent (RFC 9110, section 9.2.2).
pub(crate) fn may_retry(method: &Method, error: &(dyn StdError + 'static)) -> bool {
    method.is_idempotent() || was_never_sent(error)
}

/// Whether no connection was made: refused, unreachable, timed out while connecting, a host name that
/// doesn't resolve, or a failed TLS handshake.
fn was_never_sent(error: &(dyn StdError + 'static)) -> bool {
    #[cfg(feature = "tower")]
    if let Some(error) = error.downcast_ref::<hyper_util::client::legacy::Error>() {
        return error.is_connect();
    }
    #[cfg(feature = "reqwest")]
    if let Some(error) = error.downcast_ref::<reqwest::Error>() {
        return error.is_connect();
    }
    // For other clients, only the operating system's error is known.
    let is_unconnected = |error: &io::Error| {
        use io::ErrorKind::{
            AddrNotAvailable, ConnectionRefused, HostUnreachable, NetworkDown, NetworkUnreachable,
        };
        matches!(
            error.kind(),
            AddrNotAvailable
                | ConnectionRefused
                | HostUnreachable
                | NetworkDown
                | NetworkUnreachable
        )
    };
    match error.downcast_ref::<io::Error>() {
        Some(error) if is_unconnected(error) => true,
        _ => error.source().is_some_and(was_never_sent),
    }
}

/// Picks an instance that has the port and scheme of the address, and returns a lease and the URL to
/// call. Instances in `tried` are avoided if there is another. Waits for the provider's first answer.
pub(crate) async fn pick_for(
    balancer: &Balancer,
    address: &ServiceAddress,
    tried: &[InstanceId],
) -> Result<(Lease, String), Error> {
    // A separate function: a `Pick` is not `Send`, so none may be held across the await.
    if let Ok(found) = try_pick_for(balancer, address, tried) {
        return Ok(found);
    }
    balancer.ready().await?;
    try_pick_for(balancer, address, tried)
}

fn try_pick_for(
    balancer: &Balancer,
    address: &ServiceAddress,
    tried: &[InstanceId],
) -> Result<(Lease, String), Error> {
    let pick = pick_best_rank(balancer, address, tried)?;
    let url = address.url_at(&pick).ok_or_else(|| no_match(address))?;
    Ok((pick.lease(), url))
}

/// Picks an instance of the best [rank](ServiceAddress::rank) that any instance has.
fn pick_best_rank(
    balancer: &Balancer,
    address: &ServiceAddress,
    tried: &[InstanceId],
) -> Result<Pick, Error> {
    let pick = balancer.pick_except(tried)?;
    if address.rank(&pick) == Some(0) {
        return Ok(pick);
    }
    let endpoints = balancer.endpoints();
    let ranks = endpoints.iter().filter_map(|e| address.rank(e.instance()));
    let best = ranks.min().ok_or_else(|| no_match(address))?;
    let is_best = |instance: &Instance| address.rank(instance) == Some(best);
    let is_untried = |instance: &Instance| !tried.contains(instance.id());
    // If all instances of that rank were tried, one of them is used again.
    let found = match balancer.pick_where(|i| is_best(i) && is_untried(i))? {
        Some(pick) => Some(pick),
        None => balancer.pick_where(is_best)?,
    };
    found.ok_or_else(|| no_match(address))
}

fn no_match(address: &ServiceAddress) -> Error {
    let why = "no instance has this port and scheme";
    Invalid::new("service address", address.to_string(), why).into()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio::time::advance;
    use waypost_core::provider::MemoryProvider;

    use super::*;

    #[test]
    fn only_unsent_or_idempotent_requests_are_retried() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        assert!(may_retry(&Method::POST, &refused));
        assert!(!may_retry(&Method::POST, &reset));
        assert!(may_retry(&Method::GET, &reset));
        assert!(may_retry(&Method::DELETE, &reset));
    }

    #[tokio::test]
    async fn a_matching_instance_is_tried_again_rather_than_one_that_does_not_match() {
        let memory = MemoryProvider::new();
        for (id, scheme) in [("a", "http"), ("b", "https"), ("c", "http")] {
            let url = format!("{scheme}://10.0.0.1");
            let instance = Instance::from_url("auth".parse().unwrap(), &url).unwrap();
            memory.insert(instance.id(id).build().unwrap());
        }
        let client = ServiceDiscoveryClient::new(Arc::new(memory));
        let balancer = client.balancer("auth").unwrap();
        let address = "https://auth/".parse().unwrap();
        for tried in [&[][..], &["b".into()]] {
            for _ in 0..3 {
                let (lease, _) = pick_for(&balancer, &address, tried).await.unwrap();
                assert_eq!(lease.id().as_str(), "b");
            }
        }
    }

    /// How many of this many requests may be retried.
    fn retries(budget: &RetryBudget, requests: usize) -> usize {
        let retry = |_| {
            budget.deposit();
            usize::from(budget.withdraw())
        };
        (0..requests).map(retry).sum()
    }

    #[tokio::test(start_paused = true)]
    async fn at_most_a_fifth_of_the_requests_is_retried() {
        let budget = RetryBudget::new();
        assert_eq!(retries(&budget, 1_000), 1_000 / 5 + 10);
        // Withdrawals expire like deposits.
        advance(Duration::from_secs(5)).await;
        assert_eq!(retries(&budget, 1_000), 1_000 / 5);
    }

    #[tokio::test(start_paused = true)]
    async fn deposits_expire_after_ten_seconds() {
        let budget = RetryBudget::new();
        let burst = |budget: &RetryBudget| {
            let retries = (0..10_000).take_while(|_| budget.withdraw());
            retries.count()
        };
        for _ in 0..10 {
            (0..500).for_each(|_| budget.deposit());
            advance(Duration::from_secs(1)).await;
        }
        assert_eq!(burst(&budget), 10 * 500 / 5 + 10);
        advance(Duration::from_secs(12)).await;
        assert_eq!(burst(&budget), 10, "only the reserve is left");
    }
}
