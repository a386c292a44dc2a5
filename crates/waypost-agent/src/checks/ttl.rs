//! TTL checks: a client reports the status, and the check becomes critical if no report arrives in
//! time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::store::{CheckResult, CheckStatus, Store};
use crate::text::truncate;

const EXPIRED: &str = "TTL expired";
const LAST_OUTPUT: &str = " (last output before timeout follows): ";

#[derive(Debug)]
pub(crate) struct TtlCheck {
    id: String,
    time_to_live: Duration,
    output_max_size: usize,
    last: Mutex<Report>,
}

#[derive(Debug)]
struct Report {
    deadline: Instant,
    output: String,
}

impl TtlCheck {
    pub(super) fn new(id: String, time_to_live: Duration, output_max_size: usize) -> Self {
        let report = Report {
            deadline: Instant::now() + time_to_live,
            output: String::new(),
        };
        Self {
            id,
            time_to_live,
            output_max_size,
            last: Mutex::new(report),
        }
    }

    /// Records a report, and restarts the time to live.
    pub(crate) fn report(&self, mut result: CheckResult, store: &Store) {
        truncate(&mut result.output, self.output_max_size);
        let now = Instant::now();
        let mut last = self.last();
        last.deadline = now + self.time_to_live;
        last.output.clone_from(&result.output);
        // With the lock still held, so that the check can't expire before the result is written.
        store.write(|state, changes| {
            state.record_check_result(&self.id, result, now.into_std(), changes)
        });
    }

    /// Makes the check critical whenever its time to live has passed. Never returns.
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
            truncate(&mut output, self.output_max_size.max(EXPIRED.len()));
        }
        let result = CheckResult {
            status: CheckStatus::Critical,
            output,
        };
        store.write(|state, changes| {
            state.record_check_result(&self.id, result, now.into_std(), changes)
        });
    }

    fn last(&self) -> MutexGuard<'_, Report> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
