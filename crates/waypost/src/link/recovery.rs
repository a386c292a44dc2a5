use std::time::Duration;

use tokio::{
    sync::{Mutex, Notify},
    time::sleep,
};

/// How those who wait for a provider learn early that it is back.
///
/// Of all who wait, one at a time is the scout: it tries again within [`SCOUT`](Self::SCOUT), and
/// the one that has waited longest is the next. Whoever succeeds first wakes all others. So a
/// registry that is down is asked by a process once in two seconds, besides the long steps of the
/// backoff, however many watches wait; and when it is back, all know within three seconds.
///
/// The alternatives: a short cap of the backoff costs an attempt of *every* watch in that time; a
/// probe of its own needs a method in each provider, and tells that a port is open, not that
/// look-ups are answered.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// Held by the scout. It is fair: the roles go round in the order of asking.
    scout: Mutex<()>,
    back: Notify,
}

impl Recovery {
    /// A scout waits between the first and the second.
    const SCOUT: [Duration; 2] = [Duration::from_secs(1), Duration::from_millis(2500)];

    /// The others follow within this time, not all at once.
    const SPREAD: Duration = Duration::from_millis(500);

    /// Waits for the end of the backoff's step, or of what cuts it short.
    pub(super) async fn pause(&self, step: Duration) {
        let woken = async {
            self.back.notified().await;
            sleep(Self::SPREAD.mul_f64(fastrand::f64())).await;
        };
        let scouting = async {
            let _scout = self.scout.lock().await;
            let [least, most] = Self::SCOUT;
            sleep(least + (most - least).mul_f64(fastrand::f64())).await;
        };
        tokio::select! {
            () = sleep(step) => {}
            () = woken => {}
            () = scouting => {}
        }
    }

    /// The provider answers again.
    pub(super) fn found(&self) {
        self.back.notify_waiters();
    }
}
