//! The checks that this agent runs. Each kind has a module; what they share is here.
//!
//! A check runs for the first time as soon as it is registered, not after a random part of its
//! interval as in Consul, so that a healthy service is passing when its registration returns, or
//! soon after. The second run comes after a random part of the interval, which spreads checks that
//! were registered together.

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
pub(crate) use self::ttl::TtlCheck;
use crate::check_targets::CheckTargets;
use crate::go_compat;
use crate::store::{CheckDefinition, CheckKind, CheckResult, CheckStatus, Store};

/// The timeout of a check whose definition has none.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// How much output is kept, in bytes, of a check whose definition has no limit.
const DEFAULT_OUTPUT_MAX_SIZE: usize = 4096;

/// Starts checks.
#[derive(Debug)]
pub(crate) struct CheckRunner {
    http: Arc<Clients>,
    scripts_enabled: bool,
    targets: CheckTargets,
    random: Mutex<fastrand::Rng>,
}

impl CheckRunner {
    /// Checks any target, and runs no scripts.
    pub(crate) fn new(random: fastrand::Rng) -> Self {
        Self {
            http: Arc::default(),
            scripts_enabled: false,
            targets: CheckTargets::default(),
            random: Mutex::new(random),
        }
    }

    /// Sets whether scripts may be run, and which targets may be checked.
    pub(crate) fn with_permissions(self, scripts_enabled: bool, targets: CheckTargets) -> Self {
        Self {
            http: Arc::new(Clients::new(targets.clone())),
            scripts_enabled,
            targets,
            ..self
        }
    }

    /// Checks that a definition is valid and permitted. The error is Consul's where it has one.
    pub(crate) fn validate(&self, check: &CheckDefinition) -> Result<(), String> {
        match check.kind()? {
            CheckKind::Ttl | CheckKind::Alias => Ok(()),
            CheckKind::Http | CheckKind::Tcp | CheckKind::Grpc => self.targets.check(check),
            CheckKind::Script if self.scripts_enabled => Ok(()),
            CheckKind::Docker if self.scripts_enabled => {
                Err("Docker checks aren't supported by this agent".to_owned())
            }
            CheckKind::Script | CheckKind::Docker => Err(
                "Scripts are disabled on this agent from remote calls; to enable, configure \
                 'enable_script_checks' to true"
                    .to_owned(),
            ),
        }
    }

    /// Starts a check, which writes its results to the store under `id`.
    pub(crate) fn start(
        &self,
        id: String,
        definition: Arc<CheckDefinition>,
        store: &Arc<Store>,
    ) -> RunningCheck {
        let store = Arc::clone(store);
        if definition.ttl > 0 {
            let time_to_live = go_compat::duration(definition.ttl);
            let check = TtlCheck::new(id, time_to_live, output_max_size(&definition));
            let check = Arc::new(check);
            let task = tokio::spawn(Arc::clone(&check).run(store)).abort_handle();
            return RunningCheck {
                kind: RunningKind::Ttl(check),
                task,
            };
        }
        let task = if definition.kind() == Ok(CheckKind::Alias) {
            tokio::spawn(alias::run(id, Arc::clone(&definition), store))
        } else {
            let clients = Arc::clone(&self.http);
            let first_wait = definition.interval().mul_f64(self.first_wait_factor());
            let definition = Arc::clone(&definition);
            tokio::spawn(run_at_intervals(id, definition, clients, first_wait, store))
        };
        RunningCheck {
            kind: RunningKind::Active(definition),
            task: task.abort_handle(),
        }
    }

    /// The random part of the interval between the first run and the second: at least half of it.
    fn first_wait_factor(&self) -> f64 {
        let mut random = self.random.lock().unwrap_or_else(PoisonError::into_inner);
        0.5 + random.f64() / 2.0
    }
}

/// A check that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct RunningCheck {
    kind: RunningKind,
    task: AbortHandle,
}

#[derive(Debug)]
enum RunningKind {
    Ttl(Arc<TtlCheck>),
    Active(Arc<CheckDefinition>),
}

impl RunningCheck {
    /// The TTL check, if this is one.
    pub(crate) fn ttl(&self) -> Option<Arc<TtlCheck>> {
        match &self.kind {
            RunningKind::Ttl(check) => Some(Arc::clone(check)),
            RunningKind::Active(_) => None,
        }
    }

    /// Whether this runs the definition already, so that it needn't be restarted. A TTL check is
    /// always restarted, because registering it anew restarts its time to live.
    pub(crate) fn runs(&self, definition: &CheckDefinition) -> bool {
        match &self.kind {
            RunningKind::Ttl(_) => false,
            RunningKind::Active(known) => **known == *definition,
        }
    }
}

impl Drop for RunningCheck {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn run_at_intervals(
    id: String,
    check: Arc<CheckDefinition>,
    clients: Arc<Clients>,
    first_wait: Duration,
    store: Arc<Store>,
) {
    let mut threshold = Threshold::new(&check);
    let mut wait = first_wait;
    loop {
        let mut result = match check.kind() {
            Ok(CheckKind::Grpc) => grpc::probe(&check).await,
            Ok(CheckKind::Http) => http::probe(&check, &clients).await,
            Ok(CheckKind::Script) => script::probe(&check).await,
            _ => tcp::probe(&check).await,
        };
        truncate(&mut result.output, output_max_size(&check));
        if threshold.is_reached(result.status) {
            let now = Instant::now().into_std();
            store.write(|state, changes| state.record_check_result(&id, result, now, changes));
        }
        sleep(wait).await;
        wait = check.interval();
    }
}

fn output_max_size(check: &CheckDefinition) -> usize {
    match usize::try_from(check.output_max_size) {
        Ok(size @ 1..) => size,
        _ => DEFAULT_OUTPUT_MAX_SIZE,
    }
}

fn timeout_of(check: &CheckDefinition) -> Duration {
    check.timeout().unwrap_or(DEFAULT_TIMEOUT)
}

fn passing(output: String) -> CheckResult {
    CheckResult {
        status: CheckStatus::Passing,
        output,
    }
}

fn critical(output: String) -> CheckResult {
    CheckResult {
        status: CheckStatus::Critical,
        output,
    }
}

/// Truncates a text to at most `limit` bytes without splitting a character.
pub(crate) fn truncate(text: &mut String, limit: usize) {
    if text.len() > limit {
        let end = (0..=limit).rev().find(|&at| text.is_char_boundary(at));
        text.truncate(end.unwrap_or(0));
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
