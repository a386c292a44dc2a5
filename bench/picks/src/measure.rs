//! Timing of calls by CPU time, on one thread and on two.

use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Rounds are short and many, so that some run undisturbed even on a busy machine.
const ROUND: Duration = Duration::from_millis(2);
const ROUNDS: usize = 60;

/// Rounds with one thread, and as many with two, alternating.
const TURNS: usize = 300;

/// Time limit of a measurement with two threads, for machines that are always busy.
const TIME_LIMIT: Duration = Duration::from_secs(3);

/// The CPU time of this thread. It excludes other processes, and includes waiting for a cache line.
pub(crate) struct Stopwatch(Duration);

impl Stopwatch {
    pub(crate) fn start() -> Self {
        Self(processor_time())
    }

    pub(crate) fn elapsed(&self) -> Duration {
        processor_time().saturating_sub(self.0)
    }
}

fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Calls that are measured in alternating rounds, so that other load on the machine affects all alike.
#[derive(Default)]
pub(crate) struct Contest<'a>(Vec<Contestant<'a>>);

struct Contestant<'a> {
    name: &'static str,
    run: Box<dyn FnMut(u64) -> Duration + 'a>,
}

impl<'a> Contest<'a> {
    pub(crate) fn enter<T>(&mut self, name: &'static str, mut call: impl FnMut() -> T + 'a) {
        let run = Box::new(move |calls| time(calls, &mut call));
        self.0.push(Contestant { name, run });
    }

    /// The nanoseconds per call of each contestant, in the fastest tenth of its rounds.
    pub(crate) fn results(mut self) -> Vec<(&'static str, f64)> {
        let calls: Vec<u64> = (self.0.iter_mut())
            .map(|contestant| calibrate(&mut contestant.run))
            .collect();
        let mut rounds = vec![Vec::new(); calls.len()];
        for _ in 0..ROUNDS {
            for ((contestant, calls), rounds) in self.0.iter_mut().zip(&calls).zip(&mut rounds) {
                // Warm the caches again after the other contestants; 10,000 endpoints take a while.
                (contestant.run)(calls * 3);
                rounds.push((contestant.run)(*calls).as_nanos() as f64 / *calls as f64);
            }
        }
        let names = self.0.iter().map(|contestant| contestant.name);
        names.zip(rounds.into_iter().map(quick)).collect()
    }
}

/// The nanoseconds per call, measured alone.
pub(crate) fn nanos<T>(call: impl FnMut() -> T) -> f64 {
    let mut contest = Contest::default();
    contest.enter("", call);
    contest.results()[0].1
}

fn time<T>(calls: u64, call: &mut impl FnMut() -> T) -> Duration {
    let start = Stopwatch::start();
    for _ in 0..calls {
        black_box(call());
    }
    start.elapsed()
}

fn calibrate(run: &mut dyn FnMut(u64) -> Duration) -> u64 {
    let mut calls = 64;
    while run(calls) < ROUND / 2 {
        calls *= 2;
    }
    calls * 2
}

fn quick(mut rounds: Vec<f64>) -> f64 {
    rounds.sort_by(f64::total_cmp);
    rounds[rounds.len() / 10]
}

/// `NaN` if there are no values.
pub(crate) fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The throughput of two threads, as a multiple of that of one.
pub(crate) fn scaling<T>(call: impl Fn() -> T + Sync) -> f64 {
    let [one, two] = rates(&call);
    two / one
}

/// The nanoseconds per call while another thread makes the same call.
pub(crate) fn nanos_of_two<T>(call: impl Fn() -> T + Sync) -> f64 {
    let [_, two] = rates(&call);
    2.0 / two
}

/// The calls per nanosecond of one thread and of two threads: medians of alternating rounds. A round in
/// which a thread had to wait for a CPU is repeated, within the time limit.
fn rates<T>(call: &(impl Fn() -> T + Sync)) -> [f64; 2] {
    let calls = calibrate(&mut |calls| time(calls, &mut || call())) / 4;
    let end = Instant::now() + TIME_LIMIT;
    let mut rates = [Vec::new(), Vec::new()];
    while rates.iter().any(|rates| rates.len() < TURNS) && Instant::now() < end {
        for (threads, rates) in [1, 2].into_iter().zip(&mut rates) {
            rates.extend(together(threads, calls, call));
        }
    }
    rates.map(median)
}

/// Calls per nanosecond of CPU time, summed over the threads; `None` unless all of them ran all the time.
fn together<T>(threads: usize, calls: u64, call: &(impl Fn() -> T + Sync)) -> Option<f64> {
    let ready = AtomicUsize::new(0);
    let run = || {
        time(calls / 4, &mut || call());
        // Threads that see each other while spinning are on different CPUs.
        ready.fetch_add(1, Ordering::SeqCst);
        let deadline = Instant::now() + ROUND;
        while ready.load(Ordering::SeqCst) < threads && Instant::now() < deadline {
            std::hint::spin_loop();
        }
        let start = Instant::now();
        let took = time(calls, &mut || call());
        (start, took, Instant::now())
    };
    let runs: Vec<_> = std::thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        let all = handles.into_iter().map(|handle| handle.join());
        all.collect::<Result<_, _>>().ok()
    })?;
    let last_start = runs.iter().map(|(start, ..)| *start).max()?;
    let first_end = runs.iter().map(|(.., end)| *end).min()?;
    let shared = first_end.saturating_duration_since(last_start);
    let undisturbed =
        |took: Duration, wall: Duration| wall < took * 11 / 10 && shared > took * 3 / 4;
    (runs
        .iter()
        .all(|(start, took, end)| undisturbed(*took, *end - *start)))
    .then(|| {
        runs.iter()
            .map(|(_, took, _)| calls as f64 / took.as_nanos() as f64)
            .sum()
    })
}
