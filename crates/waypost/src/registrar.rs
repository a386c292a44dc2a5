//! Being found: registrations that are kept true.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use waypost_core::health::CheckStatus;
use waypost_core::provider::{HeartbeatResponse, InstanceReport, Provider};
use waypost_core::supervision::Backoff;
use waypost_core::{Error, ProviderError, Registration, ServiceRegistration};

/// Keeps one instance registered until it is told to stop.
///
/// It wants a state and works towards it, whatever happens in between: a registry that is down at
/// the start, restarted, wiped or replaced has the instance again within one heartbeat of its
/// return. Heartbeats go out each third of a TTL, or every 5 s where the registry does the checks;
/// each is moved by up to a tenth, so that many instances don't step in time.
///
/// Dropping it takes the registration back in the background; [`deregister`](Self::deregister)
/// also waits for that and says how it went.
///
/// ```
/// # async fn example() -> Result<(), waypost::Error> {
/// use waypost::{Check, Registrar, ServiceRegistration, get_discovery_provider};
///
/// let registration = ServiceRegistration::new("billing", 8080)?.check(Check::http("/health"));
/// let registrar = Registrar::start(get_discovery_provider()?, registration)?;
/// registrar.registered().await;
/// // … serve …
/// registrar.deregister().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Registrar {
    registration: Registration,
    state: watch::Receiver<RegistrationState>,
    wish: watch::Sender<Wish>,
}

/// What the task that reconciles is to reach.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wish {
    goal: Goal,
    /// Why the instance is to be in maintenance, if it is.
    maintenance: Option<Arc<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Goal {
    Registered,
    Deregistered,
    /// Whatever it is now, it may stay so.
    Nothing,
}

/// How far a registration has come.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RegistrationState {
    /// No attempt has succeeded yet; the latest failed so, if there was one.
    Pending(Option<ProviderError>),
    /// The registry knows the instance.
    Registered,
    /// The registry knew the instance, and now can't be asked. It is asked again.
    Lost(ProviderError),
    /// It is taken back; `Err` if the registry could not be told.
    Deregistered(Result<(), ProviderError>),
}

/// The time between heartbeats where the registry does the checks.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// The longest wait after an attempt that failed. A registry that comes back with nothing knows us
/// again before those who look us up have to notice; see `hold_empty_after_outage`.
const RETRY_WITHIN: Duration = Duration::from_secs(3);

/// How long a deregistration is tried. What remains then, the registry's own checks clear away.
const DEREGISTER_WITHIN: Duration = Duration::from_secs(5);

impl Registrar {
    /// Begins to register. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// If the provider is no registry or doesn't take the registration, or that is not valid. A
    /// registry that can't be reached is no error: it will be, some day.
    pub fn start(
        provider: Arc<dyn Provider>,
        registration: ServiceRegistration,
    ) -> Result<Self, Error> {
        let registry = provider.registry()?;
        let registration = registration.resolve(registry.local_address())?;
        registry.accepts(&registration)?;
        let (state, states) = watch::channel(RegistrationState::Pending(None));
        let (wish, wishes) = watch::channel(Wish {
            goal: Goal::Registered,
            maintenance: None,
        });
        tokio::spawn(reconcile(provider, registration.clone(), state, wishes));
        Ok(Self {
            registration,
            state: states,
            wish,
        })
    }

    /// As [`start`](Self::start), for programs that are to run wherever they are put: where there
    /// is nothing to register with, as the provider only looks services up or the platform
    /// registers by itself, it logs that with what to do, and gives `None`.
    ///
    /// # Errors
    /// If the registration is not valid.
    pub fn start_if_supported(
        provider: Arc<dyn Provider>,
        registration: ServiceRegistration,
    ) -> Result<Option<Self>, Error> {
        let service = registration.service().clone();
        match Self::start(provider, registration) {
            Ok(registrar) => Ok(Some(registrar)),
            Err(Error::Unsupported(reason)) => {
                tracing::info!(%service, "not registered by this program: {reason}");
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// What it keeps registered.
    pub fn registration(&self) -> &Registration {
        &self.registration
    }

    /// How far it has come.
    pub fn state(&self) -> RegistrationState {
        self.state.borrow().clone()
    }

    /// Waits until the registry knows the instance.
    pub async fn registered(&self) {
        let mut state = self.state.clone();
        // The task sends a last state before it ends, and that isn't awaited here.
        let registered = |state: &RegistrationState| matches!(state, RegistrationState::Registered);
        let _ = state.wait_for(registered).await;
    }

    /// Takes the instance out of service, for this reason, while it stays registered; the registry
    /// says that it is critical. Like the registration itself this is kept true.
    pub fn enter_maintenance(&self, reason: &str) {
        self.wish
            .send_modify(|wish| wish.maintenance = Some(reason.into()));
    }

    /// Puts the instance back into service.
    pub fn leave_maintenance(&self) {
        self.wish.send_modify(|wish| wish.maintenance = None);
    }

    fn aim(&self, goal: Goal) {
        self.wish.send_modify(|wish| wish.goal = goal);
    }

    /// Stops without taking the registration back: what is registered stays, until its checks say
    /// otherwise.
    pub fn abandon(self) {
        self.aim(Goal::Nothing);
    }

    /// Takes the registration back and waits until the registry has heard of it.
    ///
    /// # Errors
    /// If the registry could not be told within 5 s.
    pub async fn deregister(self) -> Result<(), Error> {
        self.aim(Goal::Deregistered);
        let mut state = self.state.clone();
        let over = |state: &RegistrationState| matches!(state, RegistrationState::Deregistered(_));
        match state.wait_for(over).await.as_deref() {
            Ok(RegistrationState::Deregistered(Err(error))) => Err(error.clone().into()),
            _ => Ok(()),
        }
    }
}

impl Drop for Registrar {
    fn drop(&mut self) {
        self.wish.send_if_modified(|wish| {
            let was_wanted = wish.goal == Goal::Registered;
            if was_wanted {
                wish.goal = Goal::Deregistered;
            }
            was_wanted
        });
    }
}

async fn reconcile(
    provider: Arc<dyn Provider>,
    registration: Registration,
    state: watch::Sender<RegistrationState>,
    mut wishes: watch::Receiver<Wish>,
) {
    let Ok(registry) = provider.registry() else {
        return;
    };
    let id = registration.instance().id();
    let every = registration.ttl().map_or(HEARTBEAT, |ttl| ttl / 3);
    // However long the time between heartbeats, a registry that is back has us within seconds.
    let mut backoff = Backoff::new(Duration::from_millis(200), RETRY_WITHIN);
    let mut known = false;
    // The maintenance that the registry knows of; a new registration has none.
    let mut in_maintenance = None;
    loop {
        let wish = wishes.borrow_and_update().clone();
        if wish.goal != Goal::Registered {
            break;
        }
        let attempt = async {
            let report = report(&registration).await;
            if !known {
                registry.register(&registration, &report).await?;
                in_maintenance = None;
            }
            if in_maintenance != wish.maintenance {
                let reason = wish.maintenance.as_deref();
                registry.set_maintenance(&registration, reason).await?;
                in_maintenance = wish.maintenance.clone();
            }
            registry.heartbeat(&registration, report).await
        };
        let attempted = tokio::select! {
            attempted = attempt => attempted,
            _ = wishes.changed() => continue,
        };
        let wait = match attempted {
            Ok(HeartbeatResponse::Known) => {
                backoff.reset();
                if !known || !matches!(*state.borrow(), RegistrationState::Registered) {
                    tracing::info!(%id, provider = %provider.describe(), "registered");
                }
                known = true;
                state.send_replace(RegistrationState::Registered);
                every.mul_f64(0.9 + 0.1 * fastrand::f64())
            }
            Ok(HeartbeatResponse::Forgotten) if known => {
                tracing::warn!(%id, provider = %provider.describe(), "the registry has forgotten us; registering again");
                known = false;
                continue;
            }
            // A registry that forgets at once what it just accepted is given time.
            Ok(HeartbeatResponse::Forgotten) => backoff.next_delay(),
            Err(error) => {
                let next = match known {
                    true => RegistrationState::Lost(error),
                    false => RegistrationState::Pending(Some(error)),
                };
                note_failure(id, &state.borrow(), &next);
                state.send_replace(next);
                backoff.next_delay()
            }
        };
        tokio::select! {
            () = sleep(wait) => {}
            _ = wishes.changed() => {}
        }
    }
    if wishes.borrow().goal == Goal::Nothing {
        return;
    }
    let outcome = deregister(&*provider, &registration).await;
    match &outcome {
        Ok(()) => tracing::info!(%id, "deregistered"),
        Err(error) => {
            tracing::warn!(%id, %error, "could not deregister; the registry's checks will notice")
        }
    }
    state.send_replace(RegistrationState::Deregistered(outcome));
}

/// What the instance says of itself now.
async fn report(registration: &Registration) -> InstanceReport {
    let Some(checks) = registration.health() else {
        return InstanceReport::alive();
    };
    let report = checks.report().await;
    let output = report.summary();
    match report.status() {
        CheckStatus::Passing => InstanceReport::new(waypost_core::Health::Passing, output),
        CheckStatus::Warning => InstanceReport::new(waypost_core::Health::Warning, output),
        CheckStatus::Critical => InstanceReport::new(waypost_core::Health::Critical, output),
    }
}

/// One line per change, not per attempt.
fn note_failure(
    id: &waypost_core::InstanceId,
    before: &RegistrationState,
    now: &RegistrationState,
) {
    use RegistrationState::{Lost, Pending};
    if let (Pending(None), Pending(Some(error))) | (RegistrationState::Registered, Lost(error)) =
        (before, now)
    {
        tracing::warn!(%id, %error, "registration is wanted, but the registry fails; trying on");
    }
}

async fn deregister(
    provider: &dyn Provider,
    registration: &Registration,
) -> Result<(), ProviderError> {
    let registry = provider.registry()?;
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
    let mut last = None;
    let attempts = async {
        loop {
            match registry.deregister(registration.instance().id()).await {
                Ok(()) => return,
                Err(error) => last = Some(error),
            }
            sleep(backoff.next_delay()).await;
        }
    };
    match timeout(DEREGISTER_WITHIN, attempts).await {
        Ok(()) => Ok(()),
        Err(_) => Err(last.unwrap_or_else(|| {
            ProviderError::unreachable(
                provider.describe(),
                format!("no answer to the deregistration within {DEREGISTER_WITHIN:?}"),
            )
        })),
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use waypost_core::ServiceName;
    use waypost_core::provider::{MemoryProvider, ServiceAnswer};

    use super::*;

    fn registration() -> ServiceRegistration {
        ServiceRegistration::new("billing", 8080)
            .unwrap()
            .id("billing-1")
    }

    #[tokio::test(start_paused = true)]
    async fn a_wiped_registry_has_us_back_within_one_heartbeat() {
        let memory = MemoryProvider::new();
        let registrar = Registrar::start(Arc::new(memory.clone()), registration()).unwrap();
        registrar.registered().await;
        let billing = ServiceName::new("billing").unwrap();

        assert!(memory.remove_service(&billing));
        let mut watch = memory.watch(&billing);
        assert_eq!(watch.next().await.unwrap().unwrap(), ServiceAnswer::Unknown);
        let back = timeout(HEARTBEAT, watch.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert!(matches!(back, ServiceAnswer::Instances(instances) if instances.len() == 1));

        registrar.deregister().await.unwrap();
        let gone = watch.next().await.unwrap().unwrap();
        assert_eq!(gone, ServiceAnswer::Instances(vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_takes_the_registration_back() {
        let memory = MemoryProvider::new();
        let registrar = Registrar::start(Arc::new(memory.clone()), registration()).unwrap();
        registrar.registered().await;
        let mut watch = memory.watch(&ServiceName::new("billing").unwrap());
        assert!(watch.next().await.unwrap().is_ok());
        drop(registrar);
        assert_eq!(
            watch.next().await.unwrap().unwrap(),
            ServiceAnswer::Instances(vec![])
        );
    }

    #[tokio::test]
    async fn a_provider_that_is_no_registry_says_so_at_once() {
        let env = waypost_core::provider::EnvProvider::new(&waypost_core::Environment::default())
            .unwrap();
        let error = Registrar::start(Arc::new(env), registration()).unwrap_err();
        assert!(matches!(error, Error::Unsupported(_)));
        assert!(
            error.to_string().contains("environment variables"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_program_runs_on_where_there_is_nothing_to_register_with() {
        let env = waypost_core::provider::EnvProvider::new(&waypost_core::Environment::default())
            .unwrap();
        let none = Registrar::start_if_supported(Arc::new(env), registration()).unwrap();
        assert!(none.is_none());
        let memory = Arc::new(MemoryProvider::new());
        let some = Registrar::start_if_supported(memory.clone(), registration()).unwrap();
        assert!(some.is_some());
        let nameless = registration().id("");
        assert!(Registrar::start_if_supported(memory, nameless.port(0)).is_err());
    }
}
