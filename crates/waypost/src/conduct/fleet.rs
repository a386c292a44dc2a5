use std::collections::HashMap;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{broadcast, watch};
use tokio::time::Instant;
use waypost_core::{InstanceId, ServiceName};

use super::checks::Checks;
use super::clock::SparingClock;
use super::in_flight::{Seat, Seats};
use super::tally::{Conduct, Status, Tally};
use super::{BalanceCounters, BalanceEvent, EjectionCause, OutlierDetection};

/// How a request went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome {
    /// It was answered.
    Succeeded,
    /// It failed in a way that the endpoint is to blame for: no connection, a broken one, no
    /// answer in time, an answer of 5xx.
    Failed,
    /// The endpoint has too much to do: 429, or 503 with `Retry-After`.
    Rejected {
        /// For how long it wants to be left alone, if it says so.
        retry_after: Option<Duration>,
    },
}

/// The endpoints of one service, as far as they have something in common: who is ejected, and who
/// is to be told of it.
#[derive(Debug)]
pub(crate) struct Fleet {
    service: ServiceName,
    options: OutlierDetection,
    born: Instant,
    clock: SparingClock,
    seats: Seats,
    /// How many endpoints take new work, as the registry says.
    size: AtomicUsize,
    /// Read on the update path, so that a fleet in which nobody is ejected costs nothing.
    ejected: AtomicUsize,
    panicking: AtomicBool,
    changed: watch::Sender<()>,
    bench: Mutex<Bench>,
    events: OnceLock<broadcast::Sender<BalanceEvent>>,
}

#[derive(Debug, Default)]
pub(super) struct Bench {
    ejected: HashMap<InstanceId, EjectionCause>,
    pub(super) checks: HashMap<InstanceId, Checks>,
    pub(super) counters: BalanceCounters,
}

/// For how long an endpoint is ejected.
#[derive(Clone, Copy, Debug)]
pub(super) enum Term {
    /// By how often it was lately.
    ByConduct,
    /// What it asked for.
    For(Duration),
    /// Until its checks pass.
    UntilWell,
}

impl Fleet {
    pub(crate) fn new(service: ServiceName, options: OutlierDetection) -> Self {
        Self {
            service,
            options,
            born: Instant::now(),
            clock: SparingClock::new(),
            seats: Seats::default(),
            size: AtomicUsize::new(0),
            ejected: AtomicUsize::new(0),
            panicking: AtomicBool::new(false),
            changed: watch::Sender::new(()),
            bench: Mutex::default(),
            events: OnceLock::new(),
        }
    }

    /// Milliseconds from its birth.
    #[inline]
    pub(crate) fn millis(&self, now: Instant) -> u64 {
        let age = now.saturating_duration_since(self.born);
        age.as_secs() * 1_000 + u64::from(age.subsec_millis())
    }

    /// What time it is, for one who needn't know each time.
    #[inline]
    pub(crate) fn look_at_clock(&self) -> Option<Instant> {
        self.clock.look(|now| self.millis(now))
    }

    /// Where the requests in flight of one more endpoint are counted.
    pub(crate) fn take_seat(&self) -> Seat {
        self.seats.take()
    }

    /// The moment that many milliseconds after its birth.
    pub(crate) fn instant(&self, millis: u64) -> Instant {
        self.born + Duration::from_millis(millis)
    }

    /// Whether anybody is ejected or on probation.
    pub(crate) fn has_ejected(&self) -> bool {
        self.ejected.load(Relaxed) > 0
    }

    pub(crate) fn cause(&self, id: &InstanceId) -> Option<EjectionCause> {
        self.bench().ejected.get(id).copied()
    }

    /// Wakes when an endpoint is ejected or comes back.
    pub(crate) fn subscribe(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    pub(crate) fn events(&self) -> broadcast::Receiver<BalanceEvent> {
        let sender = self.events.get_or_init(|| broadcast::Sender::new(256));
        sender.subscribe()
    }

    pub(crate) fn counters(&self) -> BalanceCounters {
        let bench = self.bench();
        BalanceCounters {
            ejected_now: bench.ejected.len() as u64,
            ..bench.counters
        }
    }

    /// After an update: how many take new work now, and who has left.
    pub(crate) fn resized(&self, size: usize, is_known: impl Fn(&InstanceId) -> bool) {
        self.size.store(size, Relaxed);
        if self.has_ejected() {
            let mut bench = self.bench();
            bench.ejected.retain(|id, _| is_known(id));
            self.ejected.store(bench.ejected.len(), Relaxed);
        }
    }

    /// Notes a success of about now. False if nothing is noted, since the moment matters.
    #[inline]
    pub(crate) fn record_success(&self, conduct: &Conduct) -> bool {
        if !self.options.enabled {
            return true;
        }
        let active = conduct.is_active();
        if active {
            conduct.count_success(None);
        }
        active
    }

    /// Notes how a request went.
    #[inline]
    pub(crate) fn record(&self, id: &InstanceId, conduct: &Conduct, outcome: Outcome, now: u64) {
        if !self.options.enabled {
            return;
        }
        if !conduct.is_active() {
            return self.record_of_ejected(id, conduct, outcome, now);
        }
        match outcome {
            Outcome::Succeeded => conduct.count_success(Some(now)),
            Outcome::Failed => {
                let tally = conduct.count_failure(now);
                if let Some(cause) = self.fault(tally) {
                    self.eject(id, conduct, cause, Term::ByConduct, now);
                }
            }
            Outcome::Rejected {
                retry_after: Some(pause),
            } => self.eject(
                id,
                conduct,
                EjectionCause::Overloaded,
                Term::For(pause),
                now,
            ),
            Outcome::Rejected { retry_after: None } => {}
        }
    }

    #[cold]
    fn record_of_ejected(&self, id: &InstanceId, conduct: &Conduct, outcome: Outcome, now: u64) {
        // What is still heard from before the ejection, or in panic mode, decides nothing.
        if conduct.status(now) != Status::HalfOpen {
            return;
        }
        match outcome {
            Outcome::Succeeded => self.readmit(id, conduct, now),
            Outcome::Failed => self.eject(
                id,
                conduct,
                EjectionCause::ProbeFailed,
                Term::ByConduct,
                now,
            ),
            Outcome::Rejected { retry_after } => {
                let term = retry_after.map_or(Term::ByConduct, Term::For);
                self.eject(id, conduct, EjectionCause::Overloaded, term, now);
            }
        }
    }

    fn fault(&self, tally: Tally) -> Option<EjectionCause> {
        let options = &self.options;
        if options.consecutive_failures > 0
            && tally.in_a_row >= options.consecutive_failures.min(255)
        {
            return Some(EjectionCause::ConsecutiveFailures);
        }
        let all = tally.succeeded + tally.failed;
        let rate = f64::from(tally.succeeded) / f64::from(all.max(1));
        (all >= options.minimum_requests.max(1) && rate < options.success_rate.min(0.999))
            .then_some(EjectionCause::SuccessRate)
    }

    #[cold]
    pub(super) fn eject(
        &self,
        id: &InstanceId,
        conduct: &Conduct,
        cause: EjectionCause,
        term: Term,
        now: u64,
    ) {
        let mut bench = self.bench();
        // Two threads may come to the same conclusion; the first one acts.
        match (conduct.status(now), term) {
            (Status::Ejected(Some(_)), Term::UntilWell) => {}
            (Status::Ejected(_), _) => return,
            _ => {}
        }
        let others = bench.ejected.len() - usize::from(bench.ejected.contains_key(id));
        if others >= self.options.allowed(self.size.load(Relaxed)) {
            conduct.readmit();
            if bench.ejected.remove(id).is_some() {
                self.ejections_changed(&bench);
            }
            let instance = id.clone();
            return self.tell(&mut bench, BalanceEvent::Spared { instance, cause });
        }
        let times = conduct.times.load(Relaxed);
        let (pause, times) = match term {
            Term::UntilWell => (None, times),
            Term::For(pause) => (Some(pause), times),
            Term::ByConduct => {
                let (pause, times) = self.sentence(conduct, now);
                (Some(pause), times)
            }
        };
        let pause = pause.map(|pause| pause.min(self.options.max_ejection));
        conduct.eject(pause.map(|pause| now + pause.as_millis() as u64));
        bench.ejected.insert(id.clone(), cause);
        self.ejections_changed(&bench);
        let event = BalanceEvent::Ejected {
            instance: id.clone(),
            cause,
            seconds: pause.map(|pause| pause.as_secs_f64()),
            times,
        };
        self.tell(&mut bench, event);
    }

    /// How long the next ejection lasts, and the how manieth it is.
    fn sentence(&self, conduct: &Conduct, now: u64) -> (Duration, u32) {
        // Each base time of good conduct makes up for one earlier ejection.
        let good = now.saturating_sub(u64::from(conduct.returned.load(Relaxed)) * 100);
        let forgiven = good / (self.options.base_ejection.as_millis() as u64).max(1);
        let before = match conduct.is_active() {
            true => u64::from(conduct.times.load(Relaxed)).saturating_sub(forgiven) as u32,
            false => conduct.times.load(Relaxed),
        };
        let times = before.saturating_add(1);
        conduct.times.store(times, Relaxed);
        let longest = self.options.max_ejection;
        let pause = self
            .options
            .base_ejection
            .saturating_mul(times)
            .min(longest);
        (pause.mul_f64(0.9 + 0.2 * fastrand::f64()), times)
    }

    /// The registry saw it fail, or recover, and decides: one that it leaves out takes no place
    /// among the ejected, and one that is back is most likely a new process.
    pub(crate) fn release(&self, id: &InstanceId, conduct: &Conduct) {
        if !self.has_ejected() {
            return;
        }
        let mut bench = self.bench();
        if bench.ejected.remove(id).is_some() {
            conduct.readmit();
            self.ejections_changed(&bench);
        }
    }

    pub(super) fn readmit(&self, id: &InstanceId, conduct: &Conduct, now: u64) {
        let mut bench = self.bench();
        if bench.ejected.remove(id).is_none() {
            return;
        }
        conduct.returned.store((now / 100) as u32, Relaxed);
        conduct.readmit();
        self.ejections_changed(&bench);
        let instance = id.clone();
        self.tell(&mut bench, BalanceEvent::Returned { instance });
    }

    /// Makes known who is ejected now.
    fn ejections_changed(&self, bench: &Bench) {
        self.ejected.store(bench.ejected.len(), Relaxed);
        self.changed.send_replace(());
    }

    /// Says so when ejections begin or cease to be disregarded.
    pub(crate) fn panics(&self, panic: bool, healthy: usize, known: usize) {
        if self.panicking.swap(panic, Relaxed) != panic {
            self.announce(match panic {
                true => BalanceEvent::PanicBegan { healthy, known },
                false => BalanceEvent::PanicEnded,
            });
        }
    }

    /// Counts, logs and sends an event that others found.
    pub(crate) fn announce(&self, event: BalanceEvent) {
        self.tell(&mut self.bench(), event);
    }

    fn tell(&self, bench: &mut Bench, event: BalanceEvent) {
        bench.counters.count(&event);
        event.log(self.service.as_str());
        if let Some(events) = self.events.get() {
            // No one listens now: that is all an error says.
            let _ = events.send(event);
        }
    }

    /// Nothing in it is ever half done, so a panic elsewhere leaves it in order.
    pub(super) fn bench(&self) -> MutexGuard<'_, Bench> {
        self.bench.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
