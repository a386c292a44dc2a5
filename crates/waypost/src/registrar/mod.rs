//! Keeps the application registered.
//!
//! A task compares the desired state (registered, in maintenance or not) with what the registry
//! reports at each heartbeat, and makes the calls that are needed to reach it. This one loop covers a
//! registry that is down at the start, is restarted, loses its data or is replaced.

mod changes_by_others;
mod deregistration;
mod reconcile;
mod state;

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::sync::watch;
use tokio::time::sleep;
use waypost_core::provider::{Provider, ServiceAnswer};
use waypost_core::{Error, Host, ProviderError, Registration, ServiceName, ServiceRegistration};

use self::reconcile::reconcile;
pub use self::state::RegistrationState;
use self::state::{Desired, Target};

/// Keeps one instance registered until it is dropped.
///
/// Failed registrations are retried. A registry that was down, restarted, replaced or lost its data
/// has the instance again within one heartbeat of its return. Heartbeats are sent three times per TTL,
/// or every 5 s if the registry runs the checks; each interval is up to 10 % shorter at random, so that
/// many instances don't send at the same moment.
///
/// Dropping it deregisters the instance in the background; [`deregister`](Self::deregister) also
/// waits for the result. If the runtime ends first, because `main` returns, the shutdown of the runtime
/// waits up to 1 s for the deregistration. If the process ends in another way (`std::process::exit`, a
/// signal, an abort) or the registry is unavailable, the registry's checks remove the instance.
///
/// ```
/// # async fn example() -> Result<(), waypost::Error> {
/// use waypost::{Check, Registrar, ServiceRegistration, get_discovery_provider};
///
/// let registration = ServiceRegistration::new("billing", 8080)?.check(Check::http("/health"));
/// let registrar = Registrar::start(get_discovery_provider()?, registration)?;
/// registrar.registered().await;
/// // ... serve ...
/// registrar.deregister().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Registrar {
    provider: Arc<dyn Provider>,
    registration: Registration,
    state: watch::Receiver<RegistrationState>,
    desired: watch::Sender<Desired>,
}

impl Registrar {
    /// Starts to register in the background.
    ///
    /// # Errors
    /// If the provider is not a registry ([`Error::Unsupported`]) or rejects the registration, or if
    /// the registration is invalid. An unreachable registry is not an error: registration is retried.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn start(
        provider: Arc<dyn Provider>,
        registration: ServiceRegistration,
    ) -> Result<Self, Error> {
        let registry = provider.registry()?;
        let registration = registration.resolve(registry.local_address())?;
        registry.accepts(&registration)?;
        let (state, states) = watch::channel(RegistrationState::Pending(None));
        let (desired, changes) = watch::channel(Desired {
            target: Target::Registered,
            maintenance: None,
            reports: 0,
        });
        let task = reconcile(Arc::clone(&provider), registration.clone(), state, changes);
        tokio::spawn(task);
        Ok(Self {
            provider,
            registration,
            state: states,
            desired,
        })
    }

    /// Like [`start`](Self::start), but returns `None` if nothing can be registered with the provider,
    /// either because it only looks services up or because the platform does the registration. The
    /// reason is logged. If the platform has not registered the instance after two minutes, a warning
    /// with advice is logged.
    ///
    /// # Errors
    /// If the registration is invalid.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn start_if_supported(
        provider: Arc<dyn Provider>,
        registration: ServiceRegistration,
    ) -> Result<Option<Self>, Error> {
        let service = registration.service().clone();
        match Self::start(Arc::clone(&provider), registration) {
            Ok(registrar) => Ok(Some(registrar)),
            Err(Error::Unsupported(reason)) => {
                // The lines after the first are advice for platforms that should register instances.
                let reason = reason.to_string();
                let (summary, advice) = reason.split_once('\n').unwrap_or((&reason, ""));
                tracing::info!(%service, "not registering: {summary}");
                if !advice.is_empty() {
                    tokio::spawn(advise_unless_listed(provider, service, advice.to_owned()));
                }
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// The registration.
    pub fn registration(&self) -> &Registration {
        &self.registration
    }

    /// The current state.
    pub fn state(&self) -> RegistrationState {
        self.state.borrow().clone()
    }

    /// Waits until the instance is registered.
    pub async fn registered(&self) {
        let mut state = self.state.clone();
        let registered = |state: &RegistrationState| matches!(state, RegistrationState::Registered);
        // The channel is only closed early if the runtime shuts down.
        let _ = state.wait_for(registered).await;
    }

    /// Takes the instance out of service, with a reason, while it stays registered; the registry
    /// reports it as critical. The setting is retried and renewed like the registration itself.
    pub fn enter_maintenance(&self, reason: &str) {
        self.desired
            .send_modify(|desired| desired.maintenance = Some(reason.into()));
    }

    /// Puts the instance back into service.
    pub fn leave_maintenance(&self) {
        self.desired
            .send_modify(|desired| desired.maintenance = None);
    }

    /// Runs the health checks and reports the result now instead of at the next heartbeat. Useful if the
    /// application knows that its health has changed.
    pub fn report_now(&self) {
        self.desired.send_modify(|desired| desired.reports += 1);
    }

    /// Stops without deregistering: the instance stays in the registry until its checks fail.
    pub fn abandon(&self) {
        self.set_target(Target::Abandoned);
    }

    /// Deregisters the instance, and waits until the registry has confirmed it. Calling it again
    /// returns the same result.
    ///
    /// # Errors
    /// If the registry could not be reached within 5 s.
    pub async fn deregister(&self) -> Result<(), Error> {
        self.set_target(Target::Deregistered);
        let mut state = self.state.clone();
        let deregistered =
            |state: &RegistrationState| matches!(state, RegistrationState::Deregistered(_));
        match state.wait_for(deregistered).await.as_deref() {
            Ok(RegistrationState::Deregistered(Err(error))) => Err(error.clone().into()),
            Ok(_) => Ok(()),
            Err(_) => {
                let message = "the registrar's runtime has ended without deregistering";
                Err(ProviderError::unreachable(self.provider.describe(), message).into())
            }
        }
    }

    fn set_target(&self, target: Target) {
        self.desired.send_modify(|desired| desired.target = target);
    }
}

impl Drop for Registrar {
    fn drop(&mut self) {
        self.desired.send_if_modified(|desired| {
            let was_registered = desired.target == Target::Registered;
            if was_registered {
                desired.target = Target::Deregistered;
            }
            was_registered
        });
    }
}

/// The time in which a platform must register an instance before advice is logged.
const PLATFORM_TIME: Duration = Duration::from_secs(120);

/// Logs advice unless the provider lists an instance of the service at this machine's address in time.
async fn advise_unless_listed(provider: Arc<dyn Provider>, service: ServiceName, advice: String) {
    sleep(PLATFORM_TIME).await;
    let address = provider.registry().ok().and_then(|it| it.local_address());
    let answer = provider.watch(&service).next().await;
    // If the provider fails, it is unknown whether the instance is registered.
    let (Some(address), Some(Ok(answer))) = (address, answer) else {
        return;
    };
    let is_listed = match answer {
        ServiceAnswer::Instances(all) => all.iter().any(|it| *it.host() == Host::Ip(address)),
        ServiceAnswer::Unknown => false,
    };
    if !is_listed {
        tracing::warn!(%service, %address, "no instance at this address is registered. {advice}");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;
    use tokio::runtime::Builder;
    use tokio::time::{Instant, timeout};
    use waypost_core::health::HealthChecks;
    use waypost_core::provider::{
        EnvProvider, HeartbeatResponse, InstanceReport, MemoryProvider, NamesWatch, Registry, Watch,
    };
    use waypost_core::{Environment, InstanceId};

    use super::deregistration::SHUTDOWN_ATTEMPTS;
    use super::reconcile::{HEARTBEAT, MAX_BACKOFF};
    use super::*;

    fn registration() -> ServiceRegistration {
        ServiceRegistration::new("billing", 8080)
            .unwrap()
            .id("billing-1")
    }

    #[tokio::test(start_paused = true)]
    async fn a_registry_that_lost_its_data_has_the_instance_again_within_one_heartbeat() {
        let memory = MemoryProvider::new();
        let registrar = Registrar::start(Arc::new(memory.clone()), registration()).unwrap();
        registrar.registered().await;
        let billing = ServiceName::new("billing").unwrap();

        assert!(memory.remove_service(&billing));
        let mut watch = memory.watch(&billing);
        assert_eq!(watch.next().await.unwrap().unwrap(), ServiceAnswer::Unknown);
        let restored = timeout(HEARTBEAT, watch.next())
            .await
            .unwrap()
            .unwrap()
            .unwrap();
        assert!(matches!(restored, ServiceAnswer::Instances(instances) if instances.len() == 1));

        registrar.deregister().await.unwrap();
        let deregistered = watch.next().await.unwrap().unwrap();
        assert_eq!(deregistered, ServiceAnswer::Instances(vec![]));
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_the_registrar_deregisters() {
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

    /// A registry that is down, and records when it got requests.
    #[derive(Clone, Debug, Default)]
    struct Down {
        attempts: Arc<Mutex<Vec<Instant>>>,
        /// Whether it was up until the first deregistration.
        accepts_registrations: bool,
    }

    impl Down {
        fn refuse<T: Send + 'static>(&self) -> BoxFuture<'_, Result<T, ProviderError>> {
            self.attempts.lock().unwrap().push(Instant::now());
            let error = ProviderError::unreachable(self.describe(), "connection refused");
            std::future::ready(Err(error)).boxed()
        }
    }

    impl Provider for Down {
        fn describe(&self) -> Arc<str> {
            "a registry that is down".into()
        }

        fn watch(&self, _: &ServiceName) -> Watch {
            futures_util::stream::pending().boxed()
        }

        fn watch_names(&self) -> NamesWatch {
            futures_util::stream::pending().boxed()
        }

        fn registry(&self) -> Result<&dyn Registry, ProviderError> {
            Ok(self)
        }
    }

    impl Registry for Down {
        fn register<'a>(
            &'a self,
            _: &'a Registration,
            _: &'a InstanceReport,
        ) -> BoxFuture<'a, Result<(), ProviderError>> {
            if self.accepts_registrations {
                return std::future::ready(Ok(())).boxed();
            }
            self.refuse()
        }

        fn deregister<'a>(&'a self, _: &'a InstanceId) -> BoxFuture<'a, Result<(), ProviderError>> {
            self.refuse()
        }

        fn heartbeat<'a>(
            &'a self,
            _: &'a Registration,
            _: InstanceReport,
        ) -> BoxFuture<'a, Result<HeartbeatResponse, ProviderError>> {
            if self.accepts_registrations {
                return std::future::ready(Ok(HeartbeatResponse::Known)).boxed();
            }
            self.refuse()
        }
    }

    /// Clients of a registry that has lost its data accept after 10 s that a service has no instances.
    #[tokio::test(start_paused = true)]
    async fn a_failed_registration_is_retried_within_three_seconds_even_after_a_long_outage() {
        let down = Down::default();
        let _registrar = Registrar::start(Arc::new(down.clone()), registration()).unwrap();
        sleep(Duration::from_secs(600)).await;
        let attempts = down.attempts.lock().unwrap();
        let pauses = attempts.windows(2).map(|pair| pair[1] - pair[0]);
        let longest = pauses.max().unwrap();
        assert!(longest <= MAX_BACKOFF, "{longest:?}");
        // The pauses are random and grow to 3 s, so they are 1.5 s on average.
        assert!((250..800).contains(&attempts.len()), "{}", attempts.len());
        let last = attempts.last().unwrap().elapsed();
        assert!(last <= MAX_BACKOFF, "{last:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn report_now_runs_the_health_checks_at_once() {
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&runs);
        let health = HealthChecks::new("billing").check("database", move || {
            counted.fetch_add(1, Ordering::SeqCst);
            std::future::ready(true)
        });
        let memory = Arc::new(MemoryProvider::new());
        let registrar = Registrar::start(memory, registration().health(health)).unwrap();
        registrar.registered().await;
        let before = runs.load(Ordering::SeqCst);
        registrar.report_now();
        sleep(Duration::from_millis(1)).await;
        assert_eq!(runs.load(Ordering::SeqCst), before + 1);
    }

    fn on_a_new_runtime<T>(future: impl Future<Output = T>) -> T {
        let runtime = Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(future)
    }

    #[test]
    fn nothing_stays_registered_when_the_runtime_ends() {
        let memory = MemoryProvider::new();
        let registry: Arc<dyn Provider> = Arc::new(memory.clone());
        let is_registered = || {
            let mut watch = memory.watch(&ServiceName::new("billing").unwrap());
            let answer = on_a_new_runtime(watch.next()).unwrap().unwrap();
            answer != ServiceAnswer::Instances(vec![])
        };
        for drops in [true, false] {
            let held = on_a_new_runtime(async {
                let registrar = Registrar::start(Arc::clone(&registry), registration()).unwrap();
                registrar.registered().await;
                assert!(is_registered_now(&memory));
                // Dropped right before `main` returns, or not before.
                (!drops).then_some(registrar)
            });
            assert!(!is_registered(), "{drops}");
            if let Some(registrar) = held {
                let state = registrar.state();
                assert!(matches!(state, RegistrationState::Deregistered(Ok(()))));
                on_a_new_runtime(registrar.deregister()).unwrap();
            }
        }
        on_a_new_runtime(async {
            let registrar = Registrar::start(Arc::clone(&registry), registration()).unwrap();
            registrar.registered().await;
            registrar.abandon();
        });
        assert!(is_registered(), "abandoned on purpose");
    }

    #[test]
    fn the_end_of_the_runtime_is_not_delayed_by_retries_while_the_registry_is_down() {
        let down = Down {
            accepts_registrations: true,
            ..Down::default()
        };
        on_a_new_runtime(async {
            let registrars = [1, 2, 3].map(|number| {
                let registration = registration().id(format!("billing-{number}"));
                Registrar::start(Arc::new(down.clone()), registration).unwrap()
            });
            for registrar in &registrars {
                registrar.registered().await;
            }
        });
        assert_eq!(down.attempts.lock().unwrap().len(), 3 * SHUTDOWN_ATTEMPTS);
    }

    fn is_registered_now(memory: &MemoryProvider) -> bool {
        let billing = ServiceName::new("billing").unwrap();
        let answer = memory.watch(&billing).next().now_or_never();
        matches!(answer, Some(Some(Ok(ServiceAnswer::Instances(all)))) if all.len() == 1)
    }

    #[tokio::test]
    async fn a_provider_that_is_not_a_registry_is_an_error() {
        let env = EnvProvider::new(&Environment::default());
        let error = Registrar::start(Arc::new(env), registration()).unwrap_err();
        assert!(matches!(error, Error::Unsupported(_)));
        assert!(
            error.to_string().contains("environment variables"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn start_if_supported_returns_none_without_a_registry() {
        let env = EnvProvider::new(&Environment::default());
        let none = Registrar::start_if_supported(Arc::new(env), registration()).unwrap();
        assert!(none.is_none());
        let memory = Arc::new(MemoryProvider::new());
        let some = Registrar::start_if_supported(memory.clone(), registration()).unwrap();
        assert!(some.is_some());
        let invalid = registration().id("").port(0);
        assert!(Registrar::start_if_supported(memory, invalid).is_err());
    }
}
