//! How many requests are in flight at an endpoint, counted so that cores can work side by side.
//!
//! A count that all cores share wanders between them with every request, and each waits for it. So
//! each core counts for itself and tells the others only of two at once, which a request that begins
//! and ends while nothing else happens never makes (a "sloppy counter": Boyd-Wickizer and others,
//! "An Analysis of Linux Scalability to Many Cores", 2010). What a core knows of the others is
//! behind by one request of each at most; added up, the count is exact.

use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use crate::shard::{shards, this_shard};

/// So many requests of one core are told to the others.
const TELL: i32 = 2;

/// What one core counts of a few endpoints: a line of memory.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Line([AtomicI32; Line::PLACES]);

impl Line {
    const PLACES: usize = 16;
}

/// Where the cores count one endpoint: a place in a line of each.
#[derive(Clone, Debug)]
pub(crate) struct Seat {
    lines: Arc<[Line]>,
    place: u8,
}

/// Gives each endpoint of a fleet its seat. One that was left is not given again; its lines go with
/// the last endpoint that sits there.
#[derive(Debug, Default)]
pub(crate) struct Seats(Mutex<Option<Seat>>);

impl Seats {
    pub(crate) fn take(&self) -> Seat {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let seat = match &*last {
            Some(last) if usize::from(last.place) + 1 < Line::PLACES => Seat {
                lines: Arc::clone(&last.lines),
                place: last.place + 1,
            },
            _ => Seat {
                lines: (0..shards()).map(|_| Line::default()).collect(),
                place: 0,
            },
        };
        last.insert(seat).clone()
    }
}

/// Who has counted a request, and must take it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CountedBy {
    /// All cores at once.
    All,
    /// This one, by its number.
    Core(u8),
}

impl CountedBy {
    /// The core that runs this.
    #[inline]
    pub(crate) fn this_core() -> Self {
        Self::Core(this_shard() as u8)
    }
}

impl Seat {
    /// Counts one more or one less.
    #[inline]
    pub(crate) fn count(&self, told: &AtomicI32, by: CountedBy, change: i32) {
        let CountedBy::Core(core) = by else {
            told.fetch_add(change, Relaxed);
            return;
        };
        let here = self.at(core.into());
        if (here.fetch_add(change, Relaxed) + change).abs() >= TELL {
            // It may be another thread of this core that tells what both have counted.
            told.fetch_add(here.swap(0, Relaxed), Relaxed);
        }
    }

    /// How many there are, as far as this core knows.
    #[inline]
    pub(crate) fn known_here(&self, told: &AtomicI32) -> usize {
        let here = self.at(this_shard()).load(Relaxed);
        (told.load(Relaxed) + here).max(0) as usize
    }

    /// How many there are.
    pub(crate) fn known_to_all(&self, told: &AtomicI32) -> usize {
        let cores = 0..self.lines.len();
        let untold: i32 = cores.map(|core| self.at(core).load(Relaxed)).sum();
        (told.load(Relaxed) + untold).max(0) as usize
    }

    #[inline]
    fn at(&self, core: usize) -> &AtomicI32 {
        &self.lines[core].0[usize::from(self.place) % Line::PLACES]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_are_told_of_two_at_once() {
        let (seat, told) = (Seats::default().take(), AtomicI32::new(0));
        let count = |change| seat.count(&told, CountedBy::Core(0), change);
        count(1);
        assert_eq!(told.load(Relaxed), 0);
        count(1);
        assert_eq!(told.load(Relaxed), 2);
        // One that comes and goes beside them is nobody else's business.
        for _ in 0..3 {
            count(-1);
            count(1);
        }
        assert_eq!(told.load(Relaxed), 2);
        count(-1);
        count(-1);
        assert_eq!(told.load(Relaxed), 0);
    }

    #[test]
    fn together_the_cores_know_exactly() {
        let (seat, told) = (Seats::default().take(), AtomicI32::new(0));
        let last = CountedBy::Core(shards() as u8 - 1);
        let by = [CountedBy::All, CountedBy::Core(0), last];
        std::thread::scope(|scope| {
            for by in by {
                let (seat, told) = (&seat, &told);
                scope.spawn(move || {
                    for request in 0..10_000 {
                        seat.count(told, by, 1);
                        // Every tenth stays.
                        if request % 10 > 0 {
                            seat.count(told, by, -1);
                        }
                    }
                });
            }
        });
        assert_eq!(seat.known_to_all(&told), 3 * 1_000);
        let behind = seat.known_to_all(&told).abs_diff(seat.known_here(&told));
        assert!(behind < shards().max(2), "{behind}");
    }

    #[test]
    fn every_endpoint_has_a_seat_of_its_own() {
        let seats = Seats::default();
        let taken: Vec<_> = (0..40).map(|_| seats.take()).collect();
        for (place, seat) in taken.iter().enumerate() {
            let told = AtomicI32::new(0);
            seat.count(&told, CountedBy::this_core(), 1);
            let counted = |seat: &Seat| seat.known_here(&told);
            assert_eq!(
                taken.iter().filter(|seat| counted(seat) > 0).count(),
                place + 1
            );
        }
    }
}
