//! The link to one provider, shared by all watches of it: when one that failed tries again, what
//! the log is told, and what [`ProviderStatus`] says.
//!
//! Hundreds of watches fail together when their registry does. Each by itself waits longer and
//! longer, up to 30 s, so that they don't keep the registry down; together they find out within
//! seconds that it is back, by [`Recovery`]; and they make one line in the log, by [`Ledger`].

mod ledger;
mod recovery;

use std::sync::Arc;

use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};

use self::{
    ledger::{Ledger, Sort},
    recovery::Recovery,
};
use crate::{backoff::Backoff, error::ProviderError};

pub use ledger::ProviderStatus;

/// What all watches of one provider share.
#[derive(Debug)]
pub(crate) struct Link {
    recovery: Recovery,
    ledger: Ledger,
}

impl Link {
    /// A link to the provider of this description.
    pub(crate) fn new(provider: Arc<str>) -> Arc<Self> {
        Arc::new(Self {
            recovery: Recovery::default(),
            ledger: Ledger::new(provider, true),
        })
    }

    /// A link that leaves the log to others: those to the layers of a provider tell their own.
    pub(crate) fn silent(provider: Arc<str>) -> Arc<Self> {
        Arc::new(Self {
            recovery: Recovery::default(),
            ledger: Ledger::new(provider, false),
        })
    }

    pub(crate) fn status(&self) -> ProviderStatus {
        self.ledger.status()
    }

    /// A watch that never ends: whenever the inner one does, it is begun anew after a pause.
    pub(crate) fn persistent<T: Send + 'static>(
        self: &Arc<Self>,
        subject: impl Into<Arc<str>>,
        subscribe: impl FnMut() -> BoxStream<'static, Result<T, ProviderError>> + Send + 'static,
    ) -> BoxStream<'static, Result<T, ProviderError>> {
        let keeper = Keeper {
            member: Member::new(self, subject.into()),
            subscribe,
            watch: None,
            backoff: Backoff::default(),
        };
        stream::unfold(keeper, |mut keeper| async move {
            let item = keeper.next().await;
            Some((item, keeper))
        })
        .boxed()
    }
}

/// Keeps one watch going.
struct Keeper<T, S> {
    member: Member,
    subscribe: S,
    watch: Option<BoxStream<'static, Result<T, ProviderError>>>,
    backoff: Backoff,
}

impl<T, S> Keeper<T, S>
where
    S: FnMut() -> BoxStream<'static, Result<T, ProviderError>>,
{
    async fn next(&mut self) -> Result<T, ProviderError> {
        loop {
            let watch = self.watch.get_or_insert_with(&mut self.subscribe);
            if let Some(item) = watch.next().await {
                self.member.note(&item);
                if item.is_ok() {
                    self.backoff.reset();
                }
                return item;
            }
            // What is polled after its end may panic, so the ended watch goes before the pause.
            self.watch = None;
            let step = self.backoff.next_delay();
            self.member.pause(step).await;
        }
    }
}

/// One watch as the link sees it.
struct Member {
    link: Arc<Link>,
    subject: Arc<str>,
    failing: Option<Sort>,
}

impl Member {
    fn new(link: &Arc<Link>, subject: Arc<str>) -> Self {
        link.ledger.joined();
        Self {
            link: Arc::clone(link),
            subject,
            failing: None,
        }
    }

    fn note<T>(&mut self, item: &Result<T, ProviderError>) {
        let before = self.failing;
        match item {
            Ok(_) => {
                self.failing = None;
                self.link.ledger.succeeded(before);
                if before == Some(Sort::Outage) {
                    self.link.recovery.found();
                }
            }
            Err(error) => {
                self.failing = Some(Sort::of(error));
                self.link.ledger.failed(&self.subject, before, error);
            }
        }
    }

    async fn pause(&self, step: std::time::Duration) {
        match self.failing {
            // Others' success says nothing about a request that is refused.
            Some(Sort::Refusal) => tokio::time::sleep(step).await,
            _ => self.link.recovery.pause(step).await,
        }
        self.link.ledger.reconnecting();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.link.ledger.left(self.failing);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicBool, AtomicUsize, Ordering},
        time::Duration,
    };

    use tokio::time::{Instant, sleep};

    use super::*;

    /// A provider of which each watch fails at once while it is down.
    #[derive(Clone, Default)]
    struct Fake {
        up: Arc<AtomicBool>,
        attempts: Arc<AtomicUsize>,
    }

    impl Fake {
        fn watch(&self) -> BoxStream<'static, Result<(), ProviderError>> {
            self.attempts.fetch_add(1, Ordering::SeqCst);
            match self.up.load(Ordering::SeqCst) {
                true => stream::iter([Ok(())]).chain(stream::pending()).boxed(),
                false => stream::iter([Err(ProviderError::unreachable("fake", "no"))]).boxed(),
            }
        }

        /// Follows it `watches` times, each until its first success; gives when the last had it.
        fn follow(&self, link: &Arc<Link>, watches: usize) -> tokio::task::JoinSet<Instant> {
            let mut tasks = tokio::task::JoinSet::new();
            for number in 0..watches {
                let fake = self.clone();
                let mut watch = link.persistent(format!("s{number}"), move || fake.watch());
                tasks.spawn(async move {
                    while watch.next().await.is_none_or(|item| item.is_err()) {}
                    Instant::now()
                });
            }
            tasks
        }
    }

    #[tokio::test(start_paused = true)]
    async fn all_watches_are_back_within_five_seconds_after_any_outage() {
        for watches in [1, 2, 500] {
            let (fake, link) = (Fake::default(), Link::new("fake".into()));
            let tasks = fake.follow(&link, watches);
            sleep(Duration::from_secs(600)).await;
            assert_eq!(link.status().failing(), watches);
            fake.up.store(true, Ordering::SeqCst);
            let back = Instant::now();
            let last = tasks.join_all().await.into_iter().max().unwrap();
            let took = last - back;
            assert!(took < Duration::from_secs(5), "{watches}: {took:?}");
            assert_eq!(link.status().failing(), 0);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_outage_costs_a_step_of_the_backoff_each_and_a_scout_for_all() {
        let attempts = async |watches: usize| {
            let (fake, link) = (Fake::default(), Link::new("fake".into()));
            let tasks = fake.follow(&link, watches);
            sleep(Duration::from_secs(600)).await;
            drop(tasks);
            fake.attempts.load(Ordering::SeqCst)
        };
        // A scout leaves at the latest each 2.5 s.
        let alone = attempts(1).await;
        assert!((240..600).contains(&alone), "{alone}");
        // 600 s / 15 s, some short steps at first, and the scouts.
        let many = attempts(200).await;
        assert!(many < 200 * 60 + 600, "{many}");
    }

    #[tokio::test(start_paused = true)]
    async fn one_refused_watch_is_not_asked_more_often_because_others_succeed() {
        let link = Link::new("fake".into());
        let attempts = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&attempts);
        let mut refused = link.persistent("secret", move || {
            counted.fetch_add(1, Ordering::SeqCst);
            let kind = crate::ProviderErrorKind::NotAuthorised;
            stream::iter([Err::<(), _>(ProviderError::new("fake", kind, "403"))]).boxed()
        });
        let task = tokio::spawn(async move { while refused.next().await.is_some() {} });
        let mut flapping = link.persistent("flapping", || {
            stream::iter([Ok(()), Err(ProviderError::unreachable("fake", "gone"))]).boxed()
        });
        let until = Instant::now() + Duration::from_secs(600);
        while Instant::now() < until {
            let _ = flapping.next().await;
        }
        let attempts = attempts.load(Ordering::SeqCst);
        assert!(attempts < 90, "{attempts}");
        task.abort();
    }
}
