//! The time of day, which follows Tokio's clock.

use std::time::SystemTime;

use tokio::time::Instant;

/// The time of day. While a test pauses Tokio's clock, it advances with that clock.
///
/// It is not computed as the start time plus the elapsed time, because the monotonic clock stops while
/// a laptop sleeps.
#[expect(
    clippy::disallowed_methods,
    reason = "the difference between both clocks is how far a test has advanced Tokio's"
)]
pub(crate) fn now() -> SystemTime {
    let tokio = Instant::now().into_std();
    let real = std::time::Instant::now();
    let now = SystemTime::now();
    now + tokio.saturating_duration_since(real) - real.saturating_duration_since(tokio)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::now;

    #[tokio::test(start_paused = true)]
    async fn the_time_of_day_advances_with_a_paused_clock() {
        let before = now();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let elapsed = now().duration_since(before).unwrap();
        assert!((3590..3610).contains(&elapsed.as_secs()), "{elapsed:?}");
    }
}
