//! Picks an instance for each attempt of an HTTP request, and decides about retries.

use std::error::Error as StdError;
use std::io;
use std::time::Duration;

use http::Method;
use tower::retry::budget::TpsBudget;
use waypost_core::{Error, InstanceId, Invalid, ServiceAddress};

use crate::balance::{Balancer, Lease, Pick};

/// Waits for the first answer, if there was none, and chooses an instance that fits the address
/// and was not tried, if there is one.
pub(crate) async fn choose(
    balancer: &Balancer,
    address: &ServiceAddress,
    tried: &[InstanceId],
) -> Result<(Lease, String), Error> {
    // A pick stays on its thread, so none is held while we wait.
    if let Ok(chosen) = fitting(balancer, address, tried) {
        return Ok(chosen);
    }
    balancer.ready().await?;
    fitting(balancer, address, tried)
}

fn fitting(
    balancer: &Balancer,
    address: &ServiceAddress,
    tried: &[InstanceId],
) -> Result<(Lease, String), Error> {
    let pick = fitting_pick(balancer, address, tried)?;
    let url = address.url_at(&pick).ok_or_else(|| misfit(address))?;
    Ok((pick.lease(), url))
}

fn fitting_pick(
    balancer: &Balancer,
    address: &ServiceAddress,
    tried: &[InstanceId],
) -> Result<Pick, Error> {
    let mut pick = balancer.pick_except(tried)?;
    if address.rank(&pick) == Some(0) {
        return Ok(pick);
    }
    // Not all instances are alike: the best rank that any has is what we look for.
    let ready = pick.snapshot().ready().iter();
    let ranks = ready.filter_map(|endpoint| address.rank(endpoint.instance()));
    let best = ranks.min().ok_or_else(|| misfit(address))?;
    let mut avoided = tried.to_vec();
    while address.rank(&pick) != Some(best) {
        if avoided.contains(pick.id()) {
            // All that fit were tried; then one of these again.
            return balancer.pick_except(&[]);
        }
        avoided.push(pick.id().clone());
        pick = balancer.pick_except(&avoided)?;
    }
    Ok(pick)
}

fn misfit(address: &ServiceAddress) -> Error {
    let why = "no instance has such a port or speaks such a scheme";
    Invalid::new("service address", address.to_string(), why).into()
}

/// How many endpoints a request is tried at, at most.
pub(crate) const ATTEMPTS: usize = 3;

/// Limits retries to a fifth of the requests of the last ten seconds or so, plus one per second, so that
/// they don't multiply the load on a service that is failing. Finagle and Linkerd do the same.
pub(crate) fn retry_budget() -> TpsBudget {
    TpsBudget::new(Duration::from_secs(10), 1, 0.2)
}

/// Whether a request that failed without an answer may be sent again: if it never left, or if
/// doing it twice is the same as doing it once (RFC 9110, section 9.2.2).
pub(crate) fn may_repeat(method: &Method, error: &(dyn StdError + 'static)) -> bool {
    method.is_idempotent() || never_sent(error)
}

fn never_sent(error: &(dyn StdError + 'static)) -> bool {
    let refused = io::ErrorKind::ConnectionRefused;
    match error.downcast_ref::<io::Error>() {
        Some(error) if error.kind() == refused => true,
        _ => error.source().is_some_and(never_sent),
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;
    use tower::retry::budget::Budget;

    use super::*;

    #[test]
    fn only_what_never_left_or_does_no_harm_is_repeated() {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        assert!(may_repeat(&Method::POST, &refused));
        assert!(!may_repeat(&Method::POST, &reset));
        assert!(may_repeat(&Method::GET, &reset));
        assert!(may_repeat(&Method::DELETE, &reset));
    }
    fn retries(budget: &TpsBudget, requests: usize) -> usize {
        let retry = |_| {
            budget.deposit();
            usize::from(budget.withdraw())
        };
        (0..requests).map(retry).sum()
    }

    #[tokio::test(start_paused = true)]
    async fn a_fifth_of_the_requests_may_be_retried() {
        let budget = retry_budget();
        assert_eq!(retries(&budget, 1_000), 1_000 / 5 + 10);
        // Withdrawals count as long as deposits do.
        advance(Duration::from_secs(5)).await;
        assert_eq!(retries(&budget, 1_000), 1_000 / 5);
    }

    #[tokio::test(start_paused = true)]
    async fn deposits_expire_after_ten_seconds() {
        let budget = retry_budget();
        let burst = |budget: &TpsBudget| {
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
