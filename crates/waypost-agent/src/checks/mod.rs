//! Checks that really run: a room for each kind, and here what they share.
//!
//! A check runs for the first time at once, not after a random part of its interval as in Consul:
//! a service that is well is seen to be well when its registration returns, or soon after. From
//! the second run on, checks that were registered together are spread over their interval.

mod alias;
mod grpc;
mod http;
mod script;
mod tcp;
mod threshold;
mod tls;
mod ttl;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use self::http::Clients;
use self::threshold::Threshold;
pub(crate) use self::ttl::Ttl;
use crate::check_targets::CheckTargets;
use crate::go_compat;
use crate::store::{CheckDefinition, CheckKind, CheckResult, Store};

/// How long a check may take if its definition doesn't say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// How much of a check's output is kept if its definition doesn't say.
const OUTPUT_MAX_SIZE: usize = 4096;

/// Starts checks.
#[derive(Debug)]
pub(crate) struct Runner {
    http: Arc<Clients>,
    scripts: bool,
    targets: CheckTargets,
    random: Mutex<fastrand::Rng>,
}

/// A check that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Running {
    what: What,
    task: AbortHandle,
}

#[derive(Debug)]
enum What {
    /// Waits for reports.
    Ttl(Arc<Ttl>),
    /// Looks for itself.
    Probe(Arc<CheckDefinition>),
}

impl Runner {
    pub(crate) fn new(random: fastrand::Rng) -> Self {
        Self {
            http: Arc::default(),
            scripts: false,
            targets: CheckTargets::default(),
            random: Mutex::new(random),
        }
    }

    /// Whether programs may be run, and where checks may look.
    pub(crate) fn allowing(self, scripts: bool, targets: CheckTargets) -> Self {
        Self {
            http: Arc::new(Clients::within(targets.clone())),
            scripts,
            targets,
            ..self
        }
    }

    /// Whether a check of this kind may run here. The error is Consul's where it has one.
    pub(crate) fn accepts(&self, check: &CheckDefinition) -> Result<(), String> {
        match check.kind()? {
            CheckKind::Ttl | CheckKind::Alias => Ok(()),
            CheckKind::Http | CheckKind::Tcp | CheckKind::Grpc => self.targets.check(check),
            CheckKind::Script if self.scripts => Ok(()),
            CheckKind::Docker if self.scripts => {
                Err("Docker checks aren't run by this agent".to_owned())
            }
            CheckKind::Script | CheckKind::Docker => Err(
                "Scripts are disabled on this agent from remote calls; to enable, configure \
                 'enable_script_checks' to true"
                    .to_owned(),
            ),
        }
    }

    pub(crate) fn start(
        &self,
        id: String,
        check: Arc<CheckDefinition>,
        store: &Arc<Store>,
    ) -> Running {
        let store = Arc::clone(store);
        if check.ttl > 0 {
            let ttl = Arc::new(Ttl::new(
                id,
                go_compat::duration(check.ttl),
                output_limit(&check),
            ));
            let task = tokio::spawn(Arc::clone(&ttl).run(store)).abort_handle();
            return Running {
                what: What::Ttl(ttl),
                task,
            };
        }
        let task = if check.kind() == Ok(CheckKind::Alias) {
            tokio::spawn(alias::follow(id, Arc::clone(&check), store))
        } else {
            let clients = Arc::clone(&self.http);
            let phase = self.phase();
            tokio::spawn(probe(id, Arc::clone(&check), clients, phase, store))
        };
        Running {
            what: What::Probe(check),
            task: task.abort_handle(),
        }
    }

    /// The part of the interval between the first run and the second: half of it at least.
    fn phase(&self) -> f64 {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        0.5 + random.f64() / 2.0
    }
}

impl Running {
    /// The check that waits for reports, if this is one.
    pub(crate) fn ttl(&self) -> Option<Arc<Ttl>> {
        match &self.what {
            What::Ttl(ttl) => Some(Arc::clone(ttl)),
            What::Probe(_) => None,
        }
    }

    /// Whether it does what the definition says, so that it needn't start again. A check that
    /// waits for reports does: its time starts anew.
    pub(crate) fn does(&self, definition: &CheckDefinition) -> bool {
        match &self.what {
            What::Ttl(_) => false,
            What::Probe(known) => **known == *definition,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Looks, reports and sleeps, for ever.
async fn probe(
    id: String,
    check: Arc<CheckDefinition>,
    clients: Arc<Clients>,
    phase: f64,
    store: Arc<Store>,
) {
    let mut threshold = Threshold::of(&check);
    let mut pause = check.interval().mul_f64(phase);
    loop {
        let mut outcome = match check.kind() {
            Ok(CheckKind::Grpc) => grpc::probe(&check).await,
            Ok(CheckKind::Http) => http::probe(&check, &clients).await,
            Ok(CheckKind::Script) => script::probe(&check).await,
            _ => tcp::probe(&check).await,
        };
        truncate(&mut outcome.output, output_limit(&check));
        if threshold.passes(outcome.status) {
            let now = Instant::now().into_std();
            store.write(|state, changes| state.record_check_result(&id, outcome, now, changes));
        }
        sleep(pause).await;
        pause = check.interval();
    }
}

fn output_limit(check: &CheckDefinition) -> usize {
    match usize::try_from(check.output_max_size) {
        Ok(size @ 1..) => size,
        _ => OUTPUT_MAX_SIZE,
    }
}

/// Truncates a text to at most `limit` bytes without splitting a character.
pub(crate) fn truncate(text: &mut String, limit: usize) {
    if text.len() > limit {
        let end = (0..=limit).rev().find(|&at| text.is_char_boundary(at));
        text.truncate(end.unwrap_or(0));
    }
}

fn timeout_of(check: &CheckDefinition) -> Duration {
    check.timeout().unwrap_or(DEFAULT_TIMEOUT)
}

fn passing(output: String) -> CheckResult {
    CheckResult {
        status: crate::store::CheckStatus::Passing,
        output,
    }
}

fn critical(output: String) -> CheckResult {
    CheckResult {
        status: crate::store::CheckStatus::Critical,
        output,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncation_does_not_split_characters() {
        let mut text = "aéé".to_owned();
        truncate(&mut text, 4);
        assert_eq!(text, "aé");
    }
}
