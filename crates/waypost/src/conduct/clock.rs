use tokio::time::Instant;

use crate::shard::Sharded;

/// After so many looks within a millisecond a thread knows well enough what time it is and how long
/// requests take.
const PLENTY: u64 = 16;

/// How often it then goes without.
const WITHOUT: u64 = 15;

/// A clock that is looked at sparingly: a look takes longer than all the rest of a pick with its
/// lease. Who asks seldom is always told the time; a thread that asks more than 16 times in a
/// millisecond is told once in 16 times, until a millisecond comes in which it asks less often.
#[derive(Debug)]
pub(super) struct SparingClock {
    /// The millisecond of the last look (32 bits), the looks in it (16), and how often to go
    /// without (16).
    habits: Sharded,
}

impl SparingClock {
    pub(super) fn new() -> Self {
        Self {
            habits: Sharded::new(|_| 0),
        }
    }

    /// The time, if it is worth a look. `millis` says which millisecond a moment is in.
    #[inline]
    pub(super) fn look(&self, millis: impl FnOnce(Instant) -> u64) -> Option<Instant> {
        self.habits.replace(|habits| match habits & 0xffff {
            0 => {
                let now = Instant::now();
                (looked(habits, millis(now)), Some(now))
            }
            _ => (habits - 1, None),
        })
    }
}

fn looked(habits: u64, millis: u64) -> u64 {
    let millis = millis & 0xffff_ffff;
    let looks = match habits >> 32 == millis {
        true => ((habits >> 16 & 0xffff) + 1).min(PLENTY),
        false => 1,
    };
    let without = if looks == PLENTY { WITHOUT } else { 0 };
    millis << 32 | looks << 16 | without
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_asks_seldom_is_always_told() {
        let (clock, start) = (SparingClock::new(), Instant::now());
        let look = || clock.look(|now| (now - start).as_millis() as u64);
        for _ in 0..100 {
            assert!((0..15).all(|_| look() == Some(Instant::now())));
            tokio::time::advance(Duration::from_millis(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_asks_often_is_told_once_in_a_while() {
        let (clock, start) = (SparingClock::new(), Instant::now());
        let look = || clock.look(|now| (now - start).as_millis() as u64);
        let told = |asked: usize| (0..asked).filter(|_| look().is_some()).count();
        assert_eq!(told(16), 16);
        assert_eq!(told(160), 10);
        // What it still went without is all that it misses when it asks seldom again.
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(told(15 + 10), 10);
    }
}
