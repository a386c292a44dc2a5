//! Delays an answer without usable instances, so that a wiped registry doesn't remove all instances at once.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use tokio::time::{Instant, sleep_until};
use waypost_core::{Instance, ProviderError, ProviderErrorKind};

use super::DirectoryOptions;

/// How long an answer is held after the registry was restored from an older state. Consul's agents synchronize
/// their registrations with the servers every minute, or up to 1/16 later.
const AFTER_RESTORE: Duration = Duration::from_secs(70);

/// The instances of a service; `None` if the provider doesn't know the service.
pub(super) type Instances = Option<Vec<Arc<Instance>>>;

type Item = Result<Instances, ProviderError>;

/// What is known about a service when its watch starts.
pub(super) struct Before {
    pub(super) had_instances: bool,
    /// Whether one of these instances took traffic.
    pub(super) had_ready: bool,
    /// Whether it was watched earlier in this run, but not continuously until now.
    pub(super) was_interrupted: bool,
}

/// Holds an answer without instances for a while, if there were instances before.
///
/// A registry that was wiped gives such answers until its services have registered again. A registry
/// without an outage gives them when the last instance has left. Therefore there are two durations:
/// one after an outage, and one otherwise. Meanwhile the last known good answer is kept and marked stale.
///
/// After an outage, the same applies to an answer in which no instance takes traffic: Consul considers the
/// checks of an instance that has registered again critical until they have run.
///
/// If the provider reports that the registry was restored from an older state, Consul's agents may take a
/// minute to add what is missing, so the answer is held for longer.
pub(super) fn hold_empty(
    items: BoxStream<'static, Item>,
    options: &DirectoryOptions,
    provider: Arc<str>,
    before: Before,
) -> BoxStream<'static, Item> {
    let hold = HoldEmpty {
        items,
        provider,
        after_outage: options.hold_empty_after_outage,
        otherwise: options.hold_empty,
        had_instances: before.had_instances,
        had_ready: before.had_ready,
        outage: before
            .was_interrupted
            .then_some(options.hold_empty_after_outage),
        until: None,
    };
    stream::unfold(hold, |mut hold| async move {
        let item = hold.next().await?;
        Some((item, hold))
    })
    .boxed()
}

struct HoldEmpty {
    items: BoxStream<'static, Item>,
    provider: Arc<str>,
    after_outage: Duration,
    otherwise: Duration,
    /// Whether the last accepted answer had instances.
    had_instances: bool,
    /// Whether one of these instances took traffic.
    had_ready: bool,
    /// How long an answer is held after the failures since then; `None` if there was no failure.
    outage: Option<Duration>,
    /// When the empty answer that is held back will be accepted, and the answer.
    until: Option<(Instant, Instances)>,
}

impl HoldEmpty {
    async fn next(&mut self) -> Option<Item> {
        loop {
            let deadline = self.until.as_ref().map(|(deadline, _)| *deadline);
            let expired = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let item = tokio::select! {
                item = self.items.next() => item?,
                () = expired => match self.until.take() {
                    Some((_, answer)) => return Some(self.accept(answer)),
                    None => continue,
                },
            };
            let answer = match item {
                Err(error) => {
                    self.outage = self.outage.max(Some(self.hold_after(&error)));
                    self.until = None;
                    return Some(Err(error));
                }
                Ok(answer) => answer,
            };
            let wait = match self.outage {
                Some(wait) if self.had_ready && !has_ready(&answer) => wait,
                Some(wait) if self.had_instances && is_empty(&answer) => wait,
                None if self.had_instances && is_empty(&answer) => self.otherwise,
                _ => Duration::ZERO,
            };
            if wait.is_zero() {
                return Some(self.accept(answer));
            }
            match &mut self.until {
                // A repeated answer of this kind doesn't extend the wait.
                Some((_, held)) => *held = answer,
                None => {
                    self.until = Some((Instant::now() + wait, answer));
                    return Some(Err(self.unconfirmed(wait)));
                }
            }
        }
    }

    fn accept(&mut self, answer: Instances) -> Item {
        self.until = None;
        self.outage = None;
        self.had_instances = !is_empty(&answer);
        self.had_ready = has_ready(&answer);
        Ok(answer)
    }

    /// How long an answer after this error is held.
    fn hold_after(&self, error: &ProviderError) -> Duration {
        if error.kind() == ProviderErrorKind::Unconfirmed && !self.after_outage.is_zero() {
            self.after_outage.max(AFTER_RESTORE)
        } else {
            self.after_outage
        }
    }

    fn unconfirmed(&self, wait: Duration) -> ProviderError {
        let message = format!(
            "reports no usable instances where there were some; accepted if that lasts for {}",
            humantime::format_duration(wait)
        );
        let kind = ProviderErrorKind::Unconfirmed;
        ProviderError::new(Arc::clone(&self.provider), kind, message)
    }
}

fn is_empty(answer: &Instances) -> bool {
    answer.as_ref().is_none_or(Vec::is_empty)
}

fn has_ready(answer: &Instances) -> bool {
    let mut all = answer.iter().flatten();
    all.any(|instance| instance.health().takes_traffic())
}
