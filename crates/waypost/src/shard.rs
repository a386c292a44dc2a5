//! Numbers with a copy per core. A shared counter would make picks slower with each additional core.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};

/// One number per shard. A thread always uses the same shard. There are as many shards as cores,
/// rounded up to a power of two; two threads that share one may occasionally read the same number.
#[derive(Debug)]
pub(crate) struct Sharded(Box<[CacheLine<AtomicU64>]>);

/// A value in a cache line of its own, so that cores which write other values don't wait for it.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct CacheLine<T>(pub(crate) T);

impl Sharded {
    /// `first` is the initial number of each shard, by its index.
    pub(crate) fn new(first: impl Fn(u64) -> u64) -> Self {
        let shards = 0..shards() as u64;
        Self(
            shards
                .map(|shard| CacheLine(AtomicU64::new(first(shard))))
                .collect(),
        )
    }

    /// Replaces this thread's number. No locked instruction is used, so a concurrent write by another
    /// thread of the same shard may be lost, which is harmless for a position or a seed.
    #[inline]
    pub(crate) fn replace<T>(&self, next: impl FnOnce(u64) -> (u64, T)) -> T {
        let shard = &self.0[this_shard()].0;
        let (value, result) = next(shard.load(Relaxed));
        shard.store(value, Relaxed);
        result
    }
}

/// The number of shards: a power of two, up to 64.
pub(crate) fn shards() -> usize {
    static SHARDS: OnceLock<usize> = OnceLock::new();
    *SHARDS.get_or_init(|| {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        cores.next_power_of_two().min(64)
    })
}

/// The shard of the current thread.
#[inline]
pub(crate) fn this_shard() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static ID: Cell<usize> = const { Cell::new(usize::MAX) });
    ID.with(|id| {
        if id.get() == usize::MAX {
            id.set(NEXT.fetch_add(1, Relaxed) & (shards() - 1));
        }
        id.get()
    })
}

/// A position that advances by one, for rotation.
#[derive(Debug)]
pub(crate) struct ShardedPosition(Sharded);

impl ShardedPosition {
    /// Starts at a random position.
    pub(crate) fn random() -> Self {
        Self(Sharded::new(|_| fastrand::u64(..) >> 16))
    }

    pub(crate) fn starting_at(position: usize) -> Self {
        Self(Sharded::new(|_| position as u64))
    }

    /// The next position below `count`. When `count` changes, the position is kept.
    #[inline]
    pub(crate) fn next(&self, count: usize) -> usize {
        self.0.replace(|position| {
            let position = if (position as usize) < count {
                position as usize
            } else {
                position as usize % count
            };
            (position as u64 + 1, position)
        })
    }
}

/// A fast random number generator (wyrand), not for cryptography.
#[derive(Debug)]
pub(crate) struct ShardedRng(Sharded);

impl ShardedRng {
    /// Starts from a random seed.
    pub(crate) fn new() -> Self {
        Self(Sharded::new(|_| fastrand::u64(..)))
    }

    /// The same numbers for the same seed, on each thread.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(Sharded::new(|_| seed))
    }

    #[inline]
    pub(crate) fn next_u64(&self) -> u64 {
        self.0.replace(|state| {
            let state = state.wrapping_add(0x2d35_8dcc_aa6c_78a5);
            let product = u128::from(state) * u128::from(state ^ 0x8bb8_4b93_962e_acc9);
            (state, (product >> 64) as u64 ^ product as u64)
        })
    }
}

/// Maps a random number to the range below `limit` (Lemire's multiplication).
#[inline]
pub(crate) fn scale(random: u64, limit: usize) -> usize {
    ((u128::from(random) * limit as u128) >> 64) as usize
}
