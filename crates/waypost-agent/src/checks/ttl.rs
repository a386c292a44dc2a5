//! Checks that wait for reports, and turn critical when none comes in time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::truncate;
use crate::store::{CheckResult, CheckStatus, Store};

const EXPIRED: &str = "TTL expired";
const LAST_OUTPUT: &str = " (last output before timeout follows): ";

/// A check that lives by reports.
#[derive(Debug)]
pub(crate) struct Ttl {
    id: String,
    time_to_live: Duration,
    output_limit: usize,
    last: Mutex<Report>,
}

#[derive(Debug)]
struct Report {
    deadline: Instant,
    output: String,
}

impl Ttl {
    pub(super) fn new(id: String, time_to_live: Duration, output_limit: usize) -> Self {
        let report = Report {
            deadline: Instant::now() + time_to_live,
            output: String::new(),
        };
        Self {
            id,
            time_to_live,
            output_limit,
            last: Mutex::new(report),
        }
    }

    /// Takes a report: the time starts anew.
    pub(crate) fn beat(&self, mut outcome: CheckResult, store: &Store) {
        truncate(&mut outcome.output, self.output_limit);
        let now = Instant::now();
        let mut last = self.last();
        last.deadline = now + self.time_to_live;
        last.output.clone_from(&outcome.output);
        // Still holding the report, so that it can't expire between here and there.
        store.write(|state, changes| {
            state.record_check_result(&self.id, outcome, now.into_std(), changes)
        });
    }

    /// Turns the check critical whenever its time is up.
    pub(super) async fn run(self: Arc<Self>, store: Arc<Store>) {
        loop {
            let deadline = self.last().deadline;
            sleep_until(deadline).await;
            let mut last = self.last();
            if last.deadline <= Instant::now() {
                self.expire(&mut last, &store);
            }
        }
    }

    fn expire(&self, last: &mut Report, store: &Store) {
        let now = Instant::now();
        last.deadline = now + self.time_to_live;
        let mut output = EXPIRED.to_owned();
        if !last.output.is_empty() {
            output.push_str(LAST_OUTPUT);
            output.push_str(&last.output);
            truncate(&mut output, self.output_limit.max(EXPIRED.len()));
        }
        let outcome = CheckResult {
            status: CheckStatus::Critical,
            output,
        };
        store.write(|state, changes| {
            state.record_check_result(&self.id, outcome, now.into_std(), changes)
        });
    }

    fn last(&self) -> MutexGuard<'_, Report> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
