//! Limits retries to a share of the requests, so that they can't multiply an overload.

/// The period over which retries are compared with requests, in milliseconds.
const WINDOW: u64 = 10_000;
/// The retries per second that are always allowed, for services with few requests.
const MIN_PER_SECOND: f32 = 10.0;
/// The minimum for each worker, even if many workers share [`MIN_PER_SECOND`].
const MIN_RESERVE: f32 = 10.0;

/// The retries of one service and one worker: a token bucket that requests fill.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RetryBudget {
    /// The number of retries that are allowed now.
    balance: f32,
    /// The number that each request adds.
    ratio: f32,
    per_milli: f32,
    reserve: f32,
    /// The maximum that requests can add to the reserve.
    max: f32,
    /// In milliseconds since the worker started.
    updated: u64,
}

impl RetryBudget {
    /// A budget of `ratio` retries per request, for one of this number of workers.
    pub(crate) fn new(ratio: f32, workers: usize) -> Self {
        let share = 1.0 / workers.max(1) as f32;
        let per_milli = MIN_PER_SECOND * share / 1e3;
        let reserve = (per_milli * WINDOW as f32).max(MIN_RESERVE);
        Self {
            balance: reserve,
            ratio: ratio.max(0.0),
            per_milli,
            reserve,
            max: reserve * 10.0,
            updated: 0,
        }
    }

    /// Counts a request.
    pub(crate) fn deposit(&mut self) {
        self.balance = (self.balance + self.ratio).min(self.max);
    }

    /// Takes one retry. Returns false if none is left.
    pub(crate) fn withdraw(&mut self, now: u64) -> bool {
        let passed = now.saturating_sub(self.updated) as f32;
        self.updated = now;
        if self.balance < self.reserve {
            self.balance = (self.balance + passed * self.per_milli).min(self.reserve);
        }
        if self.balance < 1.0 {
            return false;
        }
        self.balance -= 1.0;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_are_a_share_of_the_requests_beyond_a_reserve() {
        let mut budget = RetryBudget::new(0.2, 1);
        let taken = (0..1000).filter(|_| budget.withdraw(0)).count();
        assert_eq!(taken, 100, "the reserve");
        for _ in 0..1000 {
            budget.deposit();
        }
        let taken = (0..1000).filter(|_| budget.withdraw(0)).count();
        assert!((199..=201).contains(&taken), "{taken}");
        let taken = (0..1000).filter(|_| budget.withdraw(1000)).count();
        assert_eq!(taken, 10, "the reserve recovers");
    }

    #[test]
    fn workers_share_the_reserve_down_to_a_minimum() {
        for (workers, reserve, per_second) in [
            (0, 100, 10.0),
            (1, 100, 10.0),
            (4, 25, 2.5),
            (1000, 10, 0.01),
        ] {
            let mut budget = RetryBudget::new(0.2, workers);
            let mut take = |now| (0..1000).filter(|_| budget.withdraw(now)).count();
            assert_eq!(take(0), reserve, "{workers} workers");
            assert_eq!(take(1000), per_second as usize, "{workers} workers");
            assert_eq!(take(1_000_000), reserve, "no more than the reserve");
        }
    }

    #[test]
    fn requests_save_up_a_limited_number_of_retries() {
        let mut budget = RetryBudget::new(1.0, 1);
        for _ in 0..5000 {
            budget.deposit();
        }
        let taken = (0..5000).filter(|_| budget.withdraw(0)).count();
        assert_eq!(taken, 1000);
        let mut none = RetryBudget::new(-1.0, 1);
        none.deposit();
        assert_eq!((0..1000).filter(|_| none.withdraw(0)).count(), 100);
    }
}
