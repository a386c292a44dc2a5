//! Delays an answer of "no instances", so that a wiped registry doesn't remove all instances at once.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use tokio::time::{Instant, sleep_until};
use waypost_core::{Instance, ProviderError, ProviderErrorKind};

use super::DirectoryOptions;

/// The instances of a service; `None` if the provider doesn't know the service.
pub(super) type Instances = Option<Vec<Arc<Instance>>>;

type Item = Result<Instances, ProviderError>;

/// What is known about a service when its watch starts.
pub(super) struct Before {
    pub(super) had_instances: bool,
    /// Whether it was watched earlier in this run, but not continuously until now.
    pub(super) was_interrupted: bool,
}

/// Holds back an answer without instances for a while, if there were instances before.
///
/// A registry that was wiped gives such answers until its services have registered again. A registry
/// without an outage gives them when the last instance has left. Therefore there are two durations:
/// one after an outage, and one otherwise. Meanwhile the last known good answer is kept and marked stale.
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
        failed: before.was_interrupted,
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
    /// Whether an attempt has failed since.
    failed: bool,
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
                    self.failed = true;
                    self.until = None;
                    return Some(Err(error));
                }
                Ok(answer) => answer,
            };
            let is_empty = answer.as_ref().is_none_or(Vec::is_empty);
            let wait = if self.failed {
                self.after_outage
            } else {
                self.otherwise
            };
            if !(is_empty && self.had_instances) || wait.is_zero() {
                return Some(self.accept(answer));
            }
            match &mut self.until {
                // A repeated empty answer doesn't extend the wait.
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
        self.failed = false;
        self.had_instances = answer.as_ref().is_some_and(|all| !all.is_empty());
        Ok(answer)
    }

    fn unconfirmed(&self, wait: Duration) -> ProviderError {
        let message = format!(
            "reports no instances where there were some; accepted if that lasts for {}",
            humantime::format_duration(wait)
        );
        let kind = ProviderErrorKind::Unconfirmed;
        ProviderError::new(Arc::clone(&self.provider), kind, message)
    }
}
