//! Keeps the application registered.
//!
//! A task compares the desired state (registered, in maintenance or not) with what the registry
//! reports at each heartbeat, and makes the calls that are needed to reach it. This one loop covers a
//! registry that is down at the start, is restarted, loses its data or is replaced.

use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::runtime::Builder;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use waypost_core::health::CheckStatus;
use waypost_core::provider::{HeartbeatResponse, InstanceReport, Provider, ServiceAnswer};
use waypost_core::supervision::Backoff;
use waypost_core::{
    Error, Health, Host, InstanceId, ProviderError, Registration, ServiceName, ServiceRegistration,
};

use crate::telemetry::ServiceMetrics;

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

/// The state that the task reconciles the registry with.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Desired {
    target: Target,
    /// The reason for maintenance, if the instance should be in maintenance.
    maintenance: Option<Arc<str>>,
    /// The number of reports that were requested.
    reports: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Registered,
    Deregistered,
    /// Stop without a further call to the registry.
    Abandoned,
}

/// The state of a registration.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum RegistrationState {
    /// Not registered yet, with the error of the latest attempt if one has failed.
    Pending(Option<ProviderError>),
    /// The registry has the instance.
    Registered,
    /// The instance was registered, and now the registry fails. Heartbeats are retried.
    Lost(ProviderError),
    /// Deregistered; `Err` if the registry could not be reached for that.
    Deregistered(Result<(), ProviderError>),
}

/// The heartbeat interval if the registry runs the checks.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// The longest backoff after a failed attempt. It is shorter than `hold_empty_after_outage`, so that
/// after a registry has lost its data, instances are registered again before clients accept that
/// there are none.
const MAX_BACKOFF: Duration = Duration::from_secs(3);

/// How long deregistration is retried. After that it is left to the registry's checks.
const DEREGISTER_TIMEOUT: Duration = Duration::from_secs(5);

/// The same at the end of the runtime, which waits for it.
const LAST_DEREGISTER_TIMEOUT: Duration = Duration::from_secs(1);

impl Registrar {
    /// Starts to register in the background. Must be called within a Tokio runtime.
    ///
    /// # Errors
    /// If the provider is not a registry ([`Error::Unsupported`]) or rejects the registration, or if
    /// the registration is invalid. An unreachable registry is not an error: registration is retried.
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

async fn reconcile(
    provider: Arc<dyn Provider>,
    registration: Registration,
    state: watch::Sender<RegistrationState>,
    mut changes: watch::Receiver<Desired>,
) {
    let Ok(registry) = provider.registry() else {
        return;
    };
    let ending = DeregisterOnDrop {
        provider: Arc::clone(&provider),
        registration: registration.clone(),
        state,
        desired: changes.clone(),
        metrics: ServiceMetrics::of(registration.instance().service()),
    };
    let (state, metrics) = (&ending.state, &ending.metrics);
    let id = registration.instance().id();
    let every = registration.ttl().map_or(HEARTBEAT, |ttl| ttl / 3);
    let mut backoff = Backoff::new(Duration::from_millis(200), MAX_BACKOFF);
    let mut known = false;
    let mut changes_by_others = ChangesByOthers::default();
    // The maintenance that was set in the registry; a new registration has none.
    let mut maintenance = None;
    loop {
        let desired = changes.borrow_and_update().clone();
        if desired.target != Target::Registered {
            break;
        }
        let attempt = async {
            let report = report(&registration).await;
            if !known {
                registry.register(&registration, &report).await?;
                maintenance = None;
            }
            if maintenance != desired.maintenance {
                let reason = desired.maintenance.as_deref();
                registry.set_maintenance(&registration, reason).await?;
                maintenance = desired.maintenance.clone();
            }
            registry.heartbeat(&registration, report).await
        };
        let result = tokio::select! {
            result = attempt => result,
            _ = changes.changed() => continue,
        };
        let wait = match result {
            Ok(HeartbeatResponse::Changed(difference)) if known => {
                changes_by_others.changed(id, &provider.describe(), &difference);
                known = false;
                continue;
            }
            // A difference right after the registration means that the registry stores it in another
            // form, or that another process has registered since. Registering at once would be a busy loop.
            Ok(HeartbeatResponse::Known | HeartbeatResponse::Changed(_)) => {
                backoff.reset();
                if known {
                    changes_by_others.unchanged();
                }
                if !known || !matches!(*state.borrow(), RegistrationState::Registered) {
                    tracing::info!(%id, provider = %provider.describe(), "registered");
                }
                if !known {
                    metrics.registration_attempt(true);
                }
                metrics.registered(true);
                known = true;
                state.send_replace(RegistrationState::Registered);
                every.mul_f64(0.9 + 0.1 * fastrand::f64())
            }
            Ok(HeartbeatResponse::Forgotten) if known => {
                tracing::warn!(
                    %id,
                    provider = %provider.describe(),
                    "the registry has lost the registration, registering again"
                );
                known = false;
                continue;
            }
            // The registration was lost right after it was accepted: back off instead of looping.
            Ok(_) => backoff.next_delay(),
            Err(error) => {
                metrics.registration_attempt(false);
                let next = if known {
                    RegistrationState::Lost(error)
                } else {
                    RegistrationState::Pending(Some(error))
                };
                log_failure(id, &state.borrow(), &next);
                state.send_replace(next);
                backoff.next_delay()
            }
        };
        tokio::select! {
            () = sleep(wait) => {}
            _ = changes.changed() => {}
        }
    }
    if changes.borrow().target == Target::Abandoned {
        return;
    }
    let result = deregister(&*provider, &registration, DEREGISTER_TIMEOUT).await;
    ending.deregistered(result);
}

/// Deregisters the instance if the task ends early, with its runtime: no further heartbeats would be
/// sent.
struct DeregisterOnDrop {
    provider: Arc<dyn Provider>,
    registration: Registration,
    state: watch::Sender<RegistrationState>,
    desired: watch::Receiver<Desired>,
    metrics: ServiceMetrics,
}

impl DeregisterOnDrop {
    /// Logs and publishes the result.
    fn deregistered(&self, result: Result<(), ProviderError>) {
        let id = self.registration.instance().id();
        let never_registered = matches!(&*self.state.borrow(), RegistrationState::Pending(Some(_)));
        match &result {
            _ if never_registered => tracing::debug!(%id, ?result, "stopped before registering"),
            Ok(()) => tracing::info!(%id, "deregistered"),
            Err(error) => tracing::warn!(
                %id,
                %error,
                "could not deregister, leaving it to the registry's health checks"
            ),
        }
        self.metrics.registered(false);
        let deregistered = RegistrationState::Deregistered(result);
        self.state.send_replace(deregistered);
    }
}

impl Drop for DeregisterOnDrop {
    fn drop(&mut self) {
        // If the registry fails, waiting for it would only delay the end of the program.
        let may_be_registered = matches!(
            &*self.state.borrow(),
            RegistrationState::Registered | RegistrationState::Pending(None)
        );
        if !may_be_registered || self.desired.borrow().target == Target::Abandoned {
            return;
        }
        // The runtime is ending, so this needs another runtime on another thread.
        let (provider, registration) = (Arc::clone(&self.provider), self.registration.clone());
        let attempt = move || {
            let runtime = Builder::new_current_thread().enable_all().build();
            let runtime = runtime.map_err(|error| {
                ProviderError::unreachable(provider.describe(), "no runtime").with_source(error)
            })?;
            runtime.block_on(deregister(
                &*provider,
                &registration,
                LAST_DEREGISTER_TIMEOUT,
            ))
        };
        let name = "waypost-deregister".to_owned();
        let result = thread::Builder::new().name(name).spawn(attempt);
        let result = result.map(JoinHandle::join);
        self.deregistered(match result {
            Ok(Ok(result)) => result,
            _ => Err(ProviderError::unreachable(
                self.provider.describe(),
                "the last attempt to deregister failed",
            )),
        });
    }
}

/// Tracks changes of the registration by other processes.
#[derive(Debug, Default)]
struct ChangesByOthers {
    /// The number of heartbeats without a change since the last change; `None` if there was none.
    quiet: Option<u32>,
    /// Whether it was logged that another process registers the same id.
    conflict_logged: bool,
    last_difference: Option<Arc<str>>,
}

impl ChangesByOthers {
    /// If two changes are fewer heartbeats apart than this, they were made by another process that also
    /// sends heartbeats, not by a person or a tool.
    const CONFLICT: u32 = 2;

    /// The number of heartbeats without a change after which a conflict has ended.
    const RESOLVED: u32 = 10;

    /// Handles a change by another process. Logs each kind of change once.
    fn changed(&mut self, id: &InstanceId, provider: &str, difference: &Arc<str>) {
        let is_conflict = self.quiet.is_some_and(|quiet| quiet < Self::CONFLICT);
        self.quiet = Some(0);
        if is_conflict && !self.conflict_logged {
            self.conflict_logged = true;
            tracing::error!(
                %id,
                provider,
                %difference,
                "another process registers the same id, and each replaces the registration of the \
                 other; give each instance its own id"
            );
        } else if !is_conflict && self.last_difference.as_ref() != Some(difference) {
            tracing::warn!(
                %id,
                provider,
                %difference,
                "the registration was changed in the registry, registering again"
            );
        }
        self.last_difference = Some(Arc::clone(difference));
    }

    /// Handles a heartbeat that found the registration unchanged.
    fn unchanged(&mut self) {
        let Some(quiet) = &mut self.quiet else { return };
        *quiet += 1;
        if *quiet >= Self::RESOLVED {
            *self = Self::default();
        }
    }
}

/// Runs the application's health checks.
async fn report(registration: &Registration) -> InstanceReport {
    let Some(checks) = registration.health() else {
        return InstanceReport::alive();
    };
    let report = checks.report().await;
    let output = report.summary();
    match report.status() {
        CheckStatus::Passing => InstanceReport::new(Health::Passing, output),
        CheckStatus::Warning => InstanceReport::new(Health::Warning, output),
        CheckStatus::Critical => InstanceReport::new(Health::Critical, output),
    }
}

/// Logs the first failure of an outage, not each attempt.
fn log_failure(id: &InstanceId, before: &RegistrationState, now: &RegistrationState) {
    use RegistrationState::{Lost, Pending, Registered};
    match (before, now) {
        (Pending(None), Pending(Some(error))) => {
            tracing::warn!(%id, %error, "registry unavailable, retrying registration");
        }
        (Registered, Lost(error)) => {
            tracing::warn!(%id, %error, "registry unavailable, retrying heartbeat");
        }
        _ => {}
    }
}

async fn deregister(
    provider: &dyn Provider,
    registration: &Registration,
    limit: Duration,
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
    let in_time = timeout(limit, attempts).await;
    in_time.map_err(|_| {
        last.unwrap_or_else(|| {
            ProviderError::unreachable(
                provider.describe(),
                format!("no response to the deregistration within {limit:?}"),
            )
        })
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;
    use tokio::time::Instant;
    use waypost_core::Environment;
    use waypost_core::provider::{EnvProvider, MemoryProvider, NamesWatch, Registry, Watch};

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

    /// A platform that registers instances itself, at this machine's address or not at all.
    #[derive(Debug)]
    struct Platform {
        memory: MemoryProvider,
        looked_up: Mutex<u32>,
    }

    impl Provider for Platform {
        fn describe(&self) -> Arc<str> {
            "a platform".into()
        }

        fn watch(&self, service: &ServiceName) -> Watch {
            *self.looked_up.lock().unwrap() += 1;
            self.memory.watch(service)
        }

        fn watch_names(&self) -> NamesWatch {
            self.memory.watch_names()
        }

        fn registry(&self) -> Result<&dyn Registry, ProviderError> {
            let reason = "the platform registers the instance\nAdvice: select the pod";
            Err(ProviderError::unsupported(self.describe(), reason))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_platform_has_two_minutes_to_register_the_instance() {
        let platform = Arc::new(Platform {
            memory: MemoryProvider::new(),
            looked_up: Mutex::default(),
        });
        let none = Registrar::start_if_supported(platform.clone(), registration());
        assert!(none.unwrap().is_none());
        sleep(PLATFORM_TIME / 2).await;
        assert_eq!(*platform.looked_up.lock().unwrap(), 0);
        sleep(PLATFORM_TIME).await;
        assert_eq!(*platform.looked_up.lock().unwrap(), 1);
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
