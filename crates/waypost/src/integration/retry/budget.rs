//! Limits the load that retries and hedges add.

use std::time::Duration;

use tower::retry::budget::{Budget, TpsBudget};

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
    /// A budget that has counted no requests yet, and so has only its reserve.
    pub fn new() -> Self {
        Self(TpsBudget::new(Duration::from_secs(10), 1, 0.2))
    }

    /// Counts a request.
    pub fn deposit(&self) {
        self.0.deposit();
    }

    /// Whether a retry is allowed; if so, it is counted.
    pub fn withdraw(&self) -> bool {
        self.0.withdraw()
    }
}

impl Default for RetryBudget {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    /// How many retries are allowed among this number of requests.
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
