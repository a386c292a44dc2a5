//! Starts checks and runs them until they are dropped.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep};

use super::http::Clients;
use super::result::output_max_size;
use super::threshold::Threshold;
use super::ttl::TtlCheck;
use super::{alias, grpc, http, script, tcp};
use crate::check_targets::CheckTargets;
use crate::go_compat;
use crate::store::{CheckDefinition, CheckKind, Store};
use crate::text::truncate;

/// Validates and starts checks.
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

    /// Whether this already runs the definition, so that it needn't be restarted. A TTL check is
    /// always restarted, because registering it again restarts its time to live.
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
        let is_reached = threshold.is_reached(result.status);
        store.write(|state, changes| {
            if is_reached {
                let now = Instant::now().into_std();
                state.record_check_result(&id, result, now, changes);
            } else {
                state.local.count_run(&id, changes.time());
            }
        });
        sleep(wait).await;
        wait = check.interval();
    }
}
