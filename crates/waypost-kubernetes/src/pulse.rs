//! Whether the server lives, and whether it is still where it was.
//!
//! An open watch that is silent looks like one where nothing happens. So the smallest LIST there is
//! goes to the server every 8 to 10 s. No answer twice in a row means that it is down or hangs; then
//! it is asked about every second, so that its return is noticed within 2 s. And every LIST tells
//! the resource version of now: one that is lower than what the watches have seen means that etcd
//! was restored from a backup. A watch from the later version would stay silent until the server
//! has come to it once more (kubernetes/kubernetes#107457).
//!
//! | case | noticed after |
//! |---|---|
//! | the server breaks its connections | at once, by the watches |
//! | it hangs, with connections open | 16 s: an interval, and twice 3 s without an answer |
//! | etcd restored to an earlier version | 13 s: an interval and the answer |
//! | it is back | 1.5 s, and the time of one answer |

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use serde::de::IgnoredAny;
use tokio::time::{Instant, sleep_until};

use super::connection::{Ask, Connection};
use super::fault::Fault;
use super::reflector::{Marks, numeric};
use super::wire::List;

/// What a pulse tells.
#[derive(Debug)]
pub(super) enum Beat {
    /// No answer; told again for each further one that is missed.
    Silent(Fault),
    /// It answers again.
    Back,
    /// It answers, with an earlier state than was seen before.
    WentBack,
}

/// A list to ask for, and what its watch has seen.
pub(super) struct Probe {
    pub(super) path: String,
    pub(super) marks: Arc<Marks>,
}

pub(super) struct Pulse {
    connection: Arc<Connection>,
    /// Those that may be asked for; one that is refused goes to the end.
    probes: Vec<Probe>,
    flying: FuturesUnordered<BoxFuture<'static, Answer>>,
    next_at: Instant,
    misses: u32,
    silent: bool,
}

struct Answer {
    path: String,
    /// What the watch had seen when the question was sent.
    seen: u64,
    said: Result<u64, Fault>,
}

impl Pulse {
    const CALM: [Duration; 2] = [Duration::from_secs(8), Duration::from_secs(10)];
    const ANXIOUS: [Duration; 2] = [Duration::from_millis(1000), Duration::from_millis(1500)];
    /// Two such times and a calm interval are what it takes to notice a server that hangs.
    const PATIENCE: Duration = Duration::from_secs(3);

    pub(super) fn new(connection: Arc<Connection>, probes: Vec<Probe>) -> Self {
        Self {
            connection,
            probes,
            flying: FuturesUnordered::new(),
            next_at: Instant::now() + between(Self::CALM),
            misses: 0,
            silent: false,
        }
    }

    /// Asks at once, since something looks wrong.
    pub(super) fn hurry(&mut self) {
        if !self.silent && self.flying.is_empty() {
            self.next_at = Instant::now();
        }
    }

    /// The next beat that matters. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Beat {
        loop {
            tokio::select! {
                Some(answer) = self.flying.next() => if let Some(beat) = self.take(answer) {
                    return beat;
                },
                () = sleep_until(self.next_at) => self.ask(),
            }
        }
    }

    /// Asks. While the server is silent, a question goes out before the last one has failed: that
    /// one may hang on a connection that leads nowhere.
    fn ask(&mut self) {
        let pause = between(match self.silent {
            true => Self::ANXIOUS,
            false => Self::CALM,
        });
        self.next_at = Instant::now() + pause;
        let Some(Probe { path, marks }) = self.probes.first() else {
            return;
        };
        let (path, seen) = (path.clone(), marks.seen());
        let connection = Arc::clone(&self.connection);
        let question = async move {
            let ask = Ask {
                path: &path,
                query: &[("limit", "1")],
                accept: "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
            };
            let list = connection
                .get::<List<IgnoredAny>>(ask, Self::PATIENCE)
                .await;
            let said = list.map(|list| numeric(&list.metadata.resource_version));
            Answer { path, seen, said }
        };
        self.flying.push(question.boxed());
    }

    fn take(&mut self, answer: Answer) -> Option<Beat> {
        let version = match answer.said {
            Ok(version) => Some(version),
            // It lives, or it could not refuse.
            Err(fault) if fault.code() > 0 && fault.code() < 500 => {
                self.refused(&answer.path, &fault);
                None
            }
            Err(fault) => return self.missed(fault),
        };
        let was_silent = std::mem::replace(&mut self.silent, false);
        self.misses = 0;
        if was_silent {
            self.flying.clear();
            self.next_at = Instant::now() + between(Self::CALM);
        }
        if version.is_some() {
            self.set_unwatched(false);
        }
        match version {
            Some(version) if version != 0 && version < answer.seen => Some(Beat::WentBack),
            _ => was_silent.then_some(Beat::Back),
        }
    }

    fn missed(&mut self, fault: Fault) -> Option<Beat> {
        self.misses += 1;
        if self.misses == 1 {
            // One question may get lost; the next one goes by a new connection.
            self.next_at = Instant::now();
            return None;
        }
        if !std::mem::replace(&mut self.silent, true) {
            self.next_at = Instant::now() + between(Self::ANXIOUS);
        }
        Some(Beat::Silent(fault))
    }

    /// We may not list that. Where we may list nothing, the watches look out for themselves.
    fn refused(&mut self, path: &str, fault: &Fault) {
        if !fault.is_refusal() || self.probes.first().is_none_or(|first| first.path != path) {
            return;
        }
        self.probes.rotate_left(1);
        self.set_unwatched(true);
    }

    fn set_unwatched(&self, unwatched: bool) {
        for probe in &self.probes {
            probe.marks.unwatched.store(unwatched, Ordering::Relaxed);
        }
    }
}

fn between([least, most]: [Duration; 2]) -> Duration {
    least + (most - least).mul_f64(fastrand::f64())
}
