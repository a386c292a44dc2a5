use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;

/// Lets retries be at most a fifth of the requests of the last ten seconds, and ten more, so that
/// they never multiply the load on a service that is in trouble. As in Finagle and Linkerd.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    born: Instant,
    account: Mutex<Account>,
}

#[derive(Debug, Default)]
struct Account {
    /// The second that the latest entry was made in.
    now: u64,
    /// What each second put in, less what it took out; seconds that have gone by are forgotten.
    seconds: [i64; SECONDS as usize],
}

const SECONDS: u64 = 10;

/// Each request pays in one of these, each retry takes out five.
const PRICE: i64 = 5;
const RESERVE: i64 = 10 * PRICE;

impl RetryBudget {
    pub(crate) fn new() -> Self {
        Self {
            born: Instant::now(),
            account: Mutex::default(),
        }
    }

    pub(crate) fn deposit(&self) {
        *self.account().current() += 1;
    }

    /// Whether one more retry is within the budget, which it then takes.
    pub(crate) fn withdraw(&self) -> bool {
        let mut account = self.account();
        let saved: i64 = account.seconds.iter().sum();
        let enough = saved + RESERVE >= PRICE;
        if enough {
            *account.current() -= PRICE;
        }
        enough
    }

    /// The account as it is now. A panic elsewhere leaves it whole.
    fn account(&self) -> MutexGuard<'_, Account> {
        let second = Instant::now()
            .saturating_duration_since(self.born)
            .as_secs();
        let mut account = self.account.lock().unwrap_or_else(PoisonError::into_inner);
        account.advance_to(second);
        account
    }
}

impl Account {
    fn advance_to(&mut self, second: u64) {
        let gone = second.saturating_sub(self.now).min(SECONDS);
        for step in 1..=gone {
            self.seconds[((self.now + step) % SECONDS) as usize] = 0;
        }
        self.now = self.now.max(second);
    }

    fn current(&mut self) -> &mut i64 {
        &mut self.seconds[(self.now % SECONDS) as usize]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    fn retries(budget: &RetryBudget, requests: usize) -> usize {
        let retry = |_| {
            budget.deposit();
            usize::from(budget.withdraw())
        };
        (0..requests).map(retry).sum()
    }

    #[tokio::test(start_paused = true)]
    async fn a_fifth_of_the_requests_may_be_retries() {
        let budget = RetryBudget::new();
        assert_eq!(retries(&budget, 1_000), 1_000 / 5 + 10);
        // What was taken is not forgotten before what was put in.
        advance(Duration::from_secs(5)).await;
        assert_eq!(retries(&budget, 1_000), 1_000 / 5);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_saved_serves_ten_seconds_and_no_longer() {
        let budget = RetryBudget::new();
        let burst = |budget: &RetryBudget| {
            let retries = (0..10_000).take_while(|_| budget.withdraw());
            retries.count()
        };
        for _ in 0..10 {
            (0..500).for_each(|_| budget.deposit());
            advance(Duration::from_secs(1)).await;
        }
        // Of the ten seconds the first has just gone by.
        assert_eq!(burst(&budget), 9 * 500 / 5 + 10);
        advance(Duration::from_secs(10)).await;
        assert_eq!(burst(&budget), 10, "only the reserve is left");
    }
}
