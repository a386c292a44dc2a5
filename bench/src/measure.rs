use std::{fs, hint::black_box, sync::Barrier, time::Duration};

const ROUNDS: usize = 5;

/// How long one round lasts, about.
const ROUND: Duration = Duration::from_millis(25);

/// The processor time of this thread. What else the machine does meanwhile is not in it, so that
/// a busy one gives nearly the same figures as an idle one; waiting for a line of memory is.
pub struct Stopwatch(Duration);

impl Stopwatch {
    pub fn start() -> Self {
        Self(processor_time())
    }

    pub fn elapsed(&self) -> Duration {
        processor_time().saturating_sub(self.0)
    }
}

fn processor_time() -> Duration {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanos = stat.split(' ').next().and_then(|nanos| nanos.parse().ok());
    Duration::from_nanos(nanos.unwrap_or(0))
}

/// The median, over several rounds, of the nanoseconds that one call takes.
pub fn nanos<T>(mut call: impl FnMut() -> T) -> f64 {
    let calls = calibrate(&mut call);
    let round = |_| {
        let start = Stopwatch::start();
        for _ in 0..calls {
            black_box(call());
        }
        start.elapsed().as_nanos() as f64 / calls as f64
    };
    median((0..ROUNDS).map(round).collect())
}

/// How many times the calls a second of one thread two threads reach together.
pub fn scaling<T>(call: impl Fn() -> T + Sync) -> f64 {
    let mut one = || call();
    let calls = calibrate(&mut one) * 2;
    let round = |_| per_second(2, calls, &call) / per_second(1, calls, &call);
    median((0..ROUNDS).map(round).collect())
}

fn per_second<T>(threads: usize, calls: u64, call: &(impl Fn() -> T + Sync)) -> f64 {
    let together = Barrier::new(threads);
    std::thread::scope(|scope| {
        let run = || {
            together.wait();
            let start = Stopwatch::start();
            for _ in 0..calls {
                black_box(call());
            }
            calls as f64 / start.elapsed().as_secs_f64()
        };
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(run)).collect();
        let each = handles.into_iter().map(|handle| handle.join());
        each.map(|rate| rate.unwrap_or(0.0)).sum()
    })
}

fn calibrate<T>(call: &mut impl FnMut() -> T) -> u64 {
    let mut calls = 64;
    loop {
        let start = Stopwatch::start();
        for _ in 0..calls {
            black_box(call());
        }
        if start.elapsed() > ROUND / 4 {
            return calls * 4;
        }
        calls *= 4;
    }
}

pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
