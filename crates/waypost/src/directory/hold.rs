use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use tokio::time::{Instant, sleep_until};
use waypost_core::{Instance, ProviderError, ProviderErrorKind};

use super::DirectoryOptions;

/// What a provider says of a service; `None` if it doesn't know the name.
pub(super) type Said = Option<Vec<Arc<Instance>>>;

type Item = Result<Said, ProviderError>;

/// What is remembered of a service when its watch begins.
pub(super) struct Before {
    pub(super) had_instances: bool,
    /// Whether it was watched in this very run, and then not for a while.
    pub(super) unwatched: bool,
}

/// Believes an answer of "no instances at all" only after a while, where there were some before.
///
/// A registry that was wiped answers so until its services have registered again; a registry that
/// ran all the time says so when the last instance left. Hence the two times: after an outage,
/// and otherwise. Meanwhile the last known good answer stays, marked as stale.
pub(super) fn hold_empty(
    items: BoxStream<'static, Item>,
    options: &DirectoryOptions,
    provider: Arc<str>,
    before: Before,
) -> BoxStream<'static, Item> {
    let hold = Hold {
        items,
        provider,
        after_outage: options.hold_empty_after_outage,
        otherwise: options.hold_empty,
        had_instances: before.had_instances,
        failed: before.unwatched,
        until: None,
    };
    stream::unfold(hold, |mut hold| async move {
        let item = hold.next().await?;
        Some((item, hold))
    })
    .boxed()
}

struct Hold {
    items: BoxStream<'static, Item>,
    provider: Arc<str>,
    after_outage: Duration,
    otherwise: Duration,
    /// Whether the last answer that was believed had instances.
    had_instances: bool,
    /// Whether an attempt has failed since.
    failed: bool,
    /// When the empty answer that is held will be believed, and what it was.
    until: Option<(Instant, Said)>,
}

impl Hold {
    async fn next(&mut self) -> Option<Item> {
        loop {
            let deadline = self.until.as_ref().map(|(deadline, _)| *deadline);
            let over = async {
                match deadline {
                    Some(deadline) => sleep_until(deadline).await,
                    None => std::future::pending().await,
                }
            };
            let item = tokio::select! {
                item = self.items.next() => item?,
                () = over => match self.until.take() {
                    Some((_, said)) => return Some(self.believe(said)),
                    None => continue,
                },
            };
            let said = match item {
                Err(error) => {
                    self.failed = true;
                    self.until = None;
                    return Some(Err(error));
                }
                Ok(said) => said,
            };
            let is_empty = said.as_ref().is_none_or(Vec::is_empty);
            let wait = match self.failed {
                true => self.after_outage,
                false => self.otherwise,
            };
            if !(is_empty && self.had_instances) || wait.is_zero() {
                return Some(self.believe(said));
            }
            match &mut self.until {
                // Said again: that doesn't make it wait longer.
                Some((_, earlier)) => *earlier = said,
                None => {
                    self.until = Some((Instant::now() + wait, said));
                    return Some(Err(self.unconfirmed(wait)));
                }
            }
        }
    }

    fn believe(&mut self, said: Said) -> Item {
        self.until = None;
        self.failed = false;
        self.had_instances = said.as_ref().is_some_and(|said| !said.is_empty());
        Ok(said)
    }

    fn unconfirmed(&self, wait: Duration) -> ProviderError {
        let message = format!(
            "says that all instances are gone; believed if it holds for {}",
            humantime::format_duration(wait)
        );
        let kind = ProviderErrorKind::Unconfirmed;
        ProviderError::new(Arc::clone(&self.provider), kind, message)
    }
}
