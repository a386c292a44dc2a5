//! Blocking queries: a client says which index it has seen, and the answer waits for a higher one.
//!
//! The rules are Consul's: an index of 0 is answered at once; the wait is 5 minutes if not said,
//! 10 at most, and up to a sixteenth longer, so that many clients don't come back at once; when it
//! ends, the answer is given as it stands.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::call::{Call, Consistency};
use super::reply::{Body, Refusal, Reply};
use crate::store::Topic;

pub(crate) const DEFAULT_WAIT: Duration = Duration::from_secs(5 * 60);
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(10 * 60);
const JITTER: u32 = 16;

/// A read that can wait.
pub(crate) struct Read {
    /// What it waits for.
    pub topic: fn(&Call) -> Topic,
    /// What it answers.
    pub look: fn(&Call) -> Result<Found, Refusal>,
    /// What it is about.
    pub about: About,
}

/// What a read is about: the headers and a few rules depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// Nodes, services and checks: the answer says how consistent it is.
    Catalog,
    /// The same for people to look at.
    Ui,
    /// Sessions.
    Sessions,
    /// Keys: an error doesn't say how fresh it is.
    Keys,
    /// Where nodes are: nor does the lack of an answer.
    Coordinates,
    /// Events: their index goes up and down, and there is no leader to know.
    Events,
}

/// An answer and the index at which it was true.
#[derive(Debug)]
pub(crate) struct Found {
    pub index: u64,
    pub body: Body,
}

/// An answer, now or later.
pub(crate) enum Answering {
    Now(Result<Reply, Refusal>),
    Later(Pin<Box<dyn Future<Output = Result<Reply, Refusal>> + Send>>),
}

impl Read {
    /// Answers a call, at once if it needn't wait.
    pub(crate) fn answer(&'static self, call: Call) -> Answering {
        let options = match call.read_options() {
            Ok(options) => options,
            Err(refusal) => return Answering::Now(Err(refusal)),
        };
        if !call.is_for_here() && self.about != About::Events {
            let refusal = Refusal::internal("No path to datacenter");
            return Answering::Now(match self.about {
                About::Keys => Err(refusal),
                _ => Ok(with_meta(refusal.into(), 1, "false")),
            });
        }
        let found = match (self.look)(&call) {
            Ok(found) => found,
            Err(refusal) if refusal.is_of_read() => {
                return Answering::Now(Ok(with_meta(refusal.into(), 1, "false")));
            }
            Err(refusal) => return Answering::Now(Err(refusal)),
        };
        if options.index == 0 || self.is_news(&call, &found, options.index) {
            return Answering::Now(Ok(self.reply(&call, found, options.consistency)));
        }
        let wait = with_jitter(
            options.wait.unwrap_or(DEFAULT_WAIT).min(LONGEST_WAIT),
            &call,
        );
        let deadline = Instant::now() + wait;
        Answering::Later(Box::pin(async move {
            let found = self.wait(&call, options.index, deadline).await?;
            Ok(self.reply(&call, found, options.consistency))
        }))
    }

    async fn wait(&self, call: &Call, index: u64, deadline: Instant) -> Result<Found, Refusal> {
        let watch = call.app.store.watch((self.topic)(call));
        let faults = &call.app.faults;
        loop {
            let change = watch.listen();
            let disturbance = faults.disturbed();
            let found = (self.look)(call)?;
            if self.is_news(call, &found, index) {
                return Ok(found);
            }
            tokio::select! {
                () = change => {}
                () = disturbance => {
                    return if faults.empties() { Ok(found) } else { Err(Refusal::hang_up()) };
                }
                () = sleep_until(deadline) => return Ok(found),
            }
        }
    }

    /// Whether the client hasn't seen this yet.
    fn is_news(&self, call: &Call, found: &Found, seen: u64) -> bool {
        match self.about {
            About::Events => found.index != seen,
            _ => call.app.faults.shown_index(found.index) > seen,
        }
    }

    fn reply(&self, call: &Call, found: Found, consistency: Consistency) -> Reply {
        let body = if matches!(self.about, About::Catalog | About::Ui) && call.app.faults.empties()
        {
            found.body.emptied()
        } else {
            found.body
        };
        let is_missing = matches!(body, Body::Missing);
        let mut reply = Reply::of(body);
        match self.about {
            About::Events => return reply.header("x-consul-index", found.index.to_string()),
            About::Coordinates if is_missing => return reply,
            _ => {}
        }
        if self.about == About::Catalog {
            reply = reply.header("x-consul-effective-consistency", consistency.as_str());
        }
        let index = call.app.faults.shown_index(found.index);
        with_meta(reply, index, "true")
    }
}

/// Adds the headers of an answer that has an index.
fn with_meta(reply: Reply, index: u64, known_leader: &str) -> Reply {
    reply
        .header("x-consul-index", index.max(1).to_string())
        .header("x-consul-knownleader", known_leader)
        .header("x-consul-lastcontact", "0")
}

fn with_jitter(wait: Duration, call: &Call) -> Duration {
    wait + (wait / JITTER).mul_f64(call.app.random(|random| random.f64()))
}
