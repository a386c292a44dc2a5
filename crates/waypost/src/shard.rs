//! State that each thread has for itself, or nearly so. One counter shared by all cores makes a
//! pick slower with every core; a counter per thread doesn't.

use std::cell::Cell;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};

/// One number per shard; a thread always meets the same one. There are as many shards as cores,
/// rounded up; two threads that share one may now and then see the same number.
#[derive(Debug)]
pub(crate) struct Sharded(Box<[Padded]>);

#[derive(Debug)]
#[repr(align(64))]
struct Padded(AtomicU64);

impl Sharded {
    /// The number that each shard, by its index, begins with.
    pub(crate) fn new(first: impl Fn(u64) -> u64) -> Self {
        let shards = 0..shards() as u64;
        Self(
            shards
                .map(|shard| Padded(AtomicU64::new(first(shard))))
                .collect(),
        )
    }

    /// This thread's number. Written without a locked instruction: what another thread of the
    /// same shard writes meanwhile may be lost, which does no harm to a turn or a seed.
    #[inline]
    pub(crate) fn replace<T>(&self, next: impl FnOnce(u64) -> (u64, T)) -> T {
        let shard = &self.0[this_shard()].0;
        let (value, result) = next(shard.load(Relaxed));
        shard.store(value, Relaxed);
        result
    }
}

/// How many shards there are: a power of two, up to 64.
pub(crate) fn shards() -> usize {
    static SHARDS: OnceLock<usize> = OnceLock::new();
    *SHARDS.get_or_init(|| {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        cores.next_power_of_two().min(64)
    })
}

/// The shard of this thread.
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

/// Whose turn it is.
#[derive(Debug)]
pub(crate) struct Turns(Sharded);

impl Turns {
    pub(crate) fn anywhere() -> Self {
        Self(Sharded::new(|_| fastrand::u64(..) >> 16))
    }

    pub(crate) fn starting_at(turn: usize) -> Self {
        Self(Sharded::new(|_| turn as u64))
    }

    /// The next turn among so many. When their number changes, it goes on from where it was.
    #[inline]
    pub(crate) fn next(&self, among: usize) -> usize {
        self.0.replace(|turn| {
            let turn = match (turn as usize) < among {
                true => turn as usize,
                false => turn as usize % among,
            };
            (turn as u64 + 1, turn)
        })
    }
}

/// Random numbers (wyrand), good enough for dice and fast.
#[derive(Debug)]
pub(crate) struct Dice(Sharded);

impl Dice {
    pub(crate) fn new() -> Self {
        Self(Sharded::new(|_| fastrand::u64(..)))
    }

    /// The same numbers for the same seed, as long as one thread asks.
    pub(crate) fn seeded(seed: u64) -> Self {
        Self(Sharded::new(|_| seed))
    }

    #[inline]
    pub(crate) fn roll(&self) -> u64 {
        self.0.replace(|state| {
            let state = state.wrapping_add(0x2d35_8dcc_aa6c_78a5);
            let product = u128::from(state) * u128::from(state ^ 0x8bb8_4b93_962e_acc9);
            (state, (product >> 64) as u64 ^ product as u64)
        })
    }
}

/// Brings a random number below a limit (Lemire's multiplication).
#[inline]
pub(crate) fn scale(roll: u64, limit: usize) -> usize {
    ((u128::from(roll) * limit as u128) >> 64) as usize
}
