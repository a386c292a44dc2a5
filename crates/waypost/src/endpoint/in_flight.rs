//! Counts the requests in flight at an endpoint, so that cores don't wait for each other.
//!
//! A counter shared by all cores moves between their caches with every request, and each core waits
//! for it. Therefore each core has its own count, and adds it to the shared counter only when it reaches
//! 2 or -2. A single request that begins and ends on an idle core never touches the shared counter. This
//! is a "sloppy counter" (Boyd-Wickizer et al., "An Analysis of Linux Scalability to Many Cores", OSDI
//! 2010). The count that one core sees is off by at most one request per other core; the sum over all
//! cores is exact.

use std::sync::atomic::AtomicI32;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};

use crate::shard::{shards, this_shard};

/// A core adds its count to the shared counter when it reaches this size.
const FLUSH_AT: i32 = 2;

/// One core's counts for several endpoints, in a cache line of their own.
#[derive(Debug, Default)]
#[repr(align(64))]
struct CountLine([AtomicI32; CountLine::SLOTS]);

impl CountLine {
    const SLOTS: usize = 16;
}

/// The per-core counts of one endpoint. The counter that they are flushed to is passed to each
/// method: it belongs to the endpoint's state, which all its versions share.
#[derive(Clone, Debug)]
pub(crate) struct InFlightCounter {
    /// One line per core.
    lines: Arc<[CountLine]>,
    slot: u8,
}

/// Allocates the counters of a group's endpoints, sixteen to a line. A slot is not reused; the lines
/// are freed with the last endpoint that has a slot in them.
#[derive(Debug, Default)]
pub(super) struct InFlightCounters(Mutex<Option<InFlightCounter>>);

impl InFlightCounters {
    pub(super) fn allocate(&self) -> InFlightCounter {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counter = match &*last {
            Some(last) if usize::from(last.slot) + 1 < CountLine::SLOTS => InFlightCounter {
                lines: Arc::clone(&last.lines),
                slot: last.slot + 1,
            },
            _ => InFlightCounter {
                lines: (0..shards()).map(|_| CountLine::default()).collect(),
                slot: 0,
            },
        };
        last.insert(counter).clone()
    }
}

/// Where a request was counted, which is where it must be subtracted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CountedBy {
    /// In the shared counter.
    Shared,
    /// In the count of the core with this number.
    Core(u8),
}

impl CountedBy {
    /// The core of the current thread.
    #[inline]
    pub(crate) fn this_core() -> Self {
        Self::Core(this_shard() as u8)
    }
}

impl InFlightCounter {
    /// Adds `change`, which is 1 or -1.
    #[inline]
    pub(super) fn add(&self, flushed: &AtomicI32, by: CountedBy, change: i32) {
        let CountedBy::Core(core) = by else {
            flushed.fetch_add(change, Relaxed);
            return;
        };
        let own = self.at(core.into());
        if (own.fetch_add(change, Relaxed) + change).abs() >= FLUSH_AT {
            // Two threads may share a core's count; either may flush what both have counted.
            flushed.fetch_add(own.swap(0, Relaxed), Relaxed);
        }
    }

    /// The count that this core sees.
    #[inline]
    pub(super) fn estimate(&self, flushed: &AtomicI32) -> usize {
        let own = self.at(this_shard()).load(Relaxed);
        (flushed.load(Relaxed) + own).max(0) as usize
    }

    /// The exact count, summed over all cores.
    pub(super) fn sum(&self, flushed: &AtomicI32) -> usize {
        let cores = 0..self.lines.len();
        let unflushed: i32 = cores.map(|core| self.at(core).load(Relaxed)).sum();
        (flushed.load(Relaxed) + unflushed).max(0) as usize
    }

    #[inline]
    fn at(&self, core: usize) -> &AtomicI32 {
        &self.lines[core].0[usize::from(self.slot) % CountLine::SLOTS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_core_flushes_two_requests_at_once() {
        let (counter, flushed) = (InFlightCounters::default().allocate(), AtomicI32::new(0));
        let add = |change| counter.add(&flushed, CountedBy::Core(0), change);
        add(1);
        assert_eq!(flushed.load(Relaxed), 0);
        add(1);
        assert_eq!(flushed.load(Relaxed), 2);
        // A further request that begins and ends doesn't touch the shared counter.
        for _ in 0..3 {
            add(-1);
            add(1);
        }
        assert_eq!(flushed.load(Relaxed), 2);
        add(-1);
        add(-1);
        assert_eq!(flushed.load(Relaxed), 0);
    }

    #[test]
    fn the_sum_over_all_cores_is_exact() {
        let (counter, flushed) = (InFlightCounters::default().allocate(), AtomicI32::new(0));
        let last = CountedBy::Core(shards() as u8 - 1);
        let by = [CountedBy::Shared, CountedBy::Core(0), last];
        std::thread::scope(|scope| {
            for by in by {
                let (counter, flushed) = (&counter, &flushed);
                scope.spawn(move || {
                    for request in 0..10_000 {
                        counter.add(flushed, by, 1);
                        // Every tenth request stays in flight.
                        if request % 10 > 0 {
                            counter.add(flushed, by, -1);
                        }
                    }
                });
            }
        });
        assert_eq!(counter.sum(&flushed), 3 * 1_000);
        let error = counter.sum(&flushed).abs_diff(counter.estimate(&flushed));
        assert!(error < shards().max(2), "{error}");
    }

    #[test]
    fn every_endpoint_has_a_slot_of_its_own() {
        let counters = InFlightCounters::default();
        let allocated: Vec<_> = (0..40).map(|_| counters.allocate()).collect();
        for (index, counter) in allocated.iter().enumerate() {
            let flushed = AtomicI32::new(0);
            counter.add(&flushed, CountedBy::this_core(), 1);
            let counted = |counter: &InFlightCounter| counter.estimate(&flushed);
            assert_eq!(
                allocated.iter().filter(|other| counted(other) > 0).count(),
                index + 1
            );
        }
    }
}
