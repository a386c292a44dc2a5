//! The control loop of a registrar.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;
use waypost_core::health::CheckStatus;
use waypost_core::provider::{HeartbeatResponse, InstanceReport, Provider};
use waypost_core::supervision::Backoff;
use waypost_core::{Health, InstanceId, ProviderError, ProviderErrorKind, Registration};

use super::changes_by_others::ChangesByOthers;
use super::deregistration::DeregisterOnDrop;
use super::state::{Desired, RegistrationState, Target};
use crate::telemetry::ServiceMetrics;

/// The heartbeat interval if the registry runs the checks.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(5);

/// The longest backoff after a failed attempt. It is shorter than `hold_empty_after_outage`, so that
/// after a registry has lost its data, instances are registered again before clients accept that
/// there are none.
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(3);

/// Compares the desired state with the registry's at each heartbeat and each change, and makes the calls that
/// are needed. When the instance is no longer to be registered, deregisters it and ends.
pub(super) async fn reconcile(
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
    // The reason for maintenance that was set in the registry; a new registration has none.
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
            // form, or that another process has registered since. Registering again at once would be a
            // busy loop.
            Ok(HeartbeatResponse::Known | HeartbeatResponse::Changed(_)) => {
                backoff.reset();
                if known {
                    changes_by_others.unchanged();
                }
                let was_lost = !matches!(*state.borrow(), RegistrationState::Registered);
                if was_lost || (!known && !changes_by_others.is_conflict()) {
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
    ending.deregister().await;
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

/// Logs the first failure of an outage and the first refusal, not each attempt.
fn log_failure(id: &InstanceId, before: &RegistrationState, now: &RegistrationState) {
    use RegistrationState::{Lost, Pending};
    let (Pending(Some(error)) | Lost(error)) = now else {
        return;
    };
    let earlier = match before {
        Pending(earlier) => earlier.as_ref(),
        Lost(earlier) => Some(earlier),
        _ => None,
    };
    if earlier.is_some_and(|earlier| is_refusal(earlier) == is_refusal(error)) {
        return;
    }
    match (now, is_refusal(error)) {
        (Lost(_), true) => tracing::warn!(%id, %error, "registry refused the heartbeat, retrying"),
        (Lost(_), false) => tracing::warn!(%id, %error, "registry unavailable, retrying heartbeat"),
        (_, true) => tracing::warn!(%id, %error, "registry refused the registration, retrying"),
        (_, false) => tracing::warn!(%id, %error, "registry unavailable, retrying registration"),
    }
}

/// Whether the registry answered, but a setting or a permission is wrong.
fn is_refusal(error: &ProviderError) -> bool {
    use ProviderErrorKind::{Misconfigured, NotAuthorised, Rejected, Unsupported};
    matches!(
        error.kind(),
        NotAuthorised | Rejected | Unsupported | Misconfigured
    )
}
