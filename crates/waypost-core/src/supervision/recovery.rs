//! Wakes all watches of a provider within seconds after it is available again.

use std::time::Duration;

use tokio::sync::{Mutex, Notify};
use tokio::time::sleep;

/// Ends the backoff of all waiting watches as soon as one of them succeeds.
///
/// One of the waiting watches at a time is the prober: it retries after 1 to 2.5 s, whatever its
/// backoff. The role passes on in the order of arrival. The first watch that succeeds wakes all
/// others. So an unavailable registry gets one request from this process about every two seconds,
/// plus the retries of each watch's own backoff, and all watches recover within about three seconds
/// after the registry is available again.
///
/// Two alternatives were considered. A low cap on the backoff costs one request per *watch* in that
/// time. A separate probe needs another method in every provider, and an open port doesn't mean that
/// look-ups succeed.
#[derive(Debug, Default)]
pub(super) struct Recovery {
    /// Held by the prober. Tokio's mutex is fair, so the role passes on in order of arrival.
    prober: Mutex<()>,
    recovered: Notify,
}

impl Recovery {
    /// The minimum and maximum wait of the prober.
    const PROBE_INTERVAL: [Duration; 2] = [Duration::from_secs(1), Duration::from_millis(2500)];

    /// The other watches restart at random times within this period, not all at once.
    const SPREAD: Duration = Duration::from_millis(500);

    /// Waits for `step`, or less if the provider recovers or this watch becomes the prober.
    pub(super) async fn pause(&self, step: Duration) {
        let recovered = async {
            self.recovered.notified().await;
            sleep(Self::SPREAD.mul_f64(fastrand::f64())).await;
        };
        let probing = async {
            let _prober = self.prober.lock().await;
            let [min, max] = Self::PROBE_INTERVAL;
            sleep(min + (max - min).mul_f64(fastrand::f64())).await;
        };
        tokio::select! {
            () = sleep(step) => {}
            () = recovered => {}
            () = probing => {}
        }
    }

    /// Wakes all watches that are waiting.
    pub(super) fn recovered(&self) {
        self.recovered.notify_waiters();
    }
}
