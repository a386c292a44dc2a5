use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Lets retries be at most a fifth of all requests, so that they never multiply the load on a
/// service that is in trouble. A client that has hardly begun may retry ten times.
#[derive(Debug)]
pub(crate) struct RetryBudget(AtomicU32);

/// Each request pays in one of these, each retry takes out five.
const PRICE: u32 = 5;
const RESERVE: u32 = 10 * PRICE;

/// More isn't saved up for a bad day.
const MOST: u32 = 100 * PRICE;

impl RetryBudget {
    pub(crate) fn new() -> Self {
        Self(AtomicU32::new(RESERVE))
    }

    pub(crate) fn deposit(&self) {
        let _ = self.0.fetch_update(Relaxed, Relaxed, |saved| {
            (saved < MOST).then_some(saved + 1)
        });
    }

    /// Whether one more retry is within the budget, which it then takes.
    pub(crate) fn withdraw(&self) -> bool {
        let take = |saved: u32| saved.checked_sub(PRICE);
        self.0.fetch_update(Relaxed, Relaxed, take).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_the_requests_may_be_retries() {
        let budget = RetryBudget::new();
        let mut retries = 0;
        for _ in 0..1_000 {
            budget.deposit();
            retries += usize::from(budget.withdraw());
        }
        assert_eq!(retries, 1_000 / 5 + 10);
    }
}
