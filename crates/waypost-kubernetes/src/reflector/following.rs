//! A watch from where one is: opened, read, and opened again.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use waypost_core::ProviderErrorKind;

use super::Change;
use super::work::Work;
use crate::connection::Ask;
use crate::events::{Broken, Event, Events, News};
use crate::fault::Fault;
use crate::wire::Object;

impl Work {
    /// A watch is asked to last a random time between these, in seconds.
    const WINDOW: std::ops::Range<u64> = 30..60;
    /// How long after its time the end of a watch may come.
    const GRACE: Duration = Duration::from_secs(5);
    /// A watch that breaks sooner than this after it was opened is a failure of its own.
    const SHORT: Duration = Duration::from_secs(1);
    /// A watch that goes on from somewhere is refused by its first event, if at all.
    const SETTLING: Duration = Duration::from_millis(100);

    pub(super) async fn resume(&mut self) -> Result<(), Fault> {
        let position = self.position.clone().unwrap_or_default();
        let events = self.open(&position, &[]).await;
        // A place that the server can't even read is from another cluster.
        let events = events.inspect_err(|fault| {
            if matches!(fault.code(), 400 | 422) {
                self.position = None;
            }
            if fault.is_refusal() {
                self.position = None;
            }
        })?;
        self.events = Some(events);
        if self.failing {
            self.settles_at = Some(Instant::now() + Self::SETTLING);
        }
        Ok(())
    }

    pub(super) async fn open(
        &mut self,
        version: &str,
        more: &[(&str, &str)],
    ) -> Result<Events, Fault> {
        let seconds = fastrand::u64(Self::WINDOW);
        let shown = seconds.to_string();
        let mut query = vec![
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", version),
            ("timeoutSeconds", &shown),
        ];
        query.extend_from_slice(more);
        query.extend(
            self.only
                .as_ref()
                .map(|(key, value)| (*key, value.as_str())),
        );
        let body = self
            .connection
            .open(Ask::new(&self.path, &query), Self::PATIENCE);
        let lasts = Duration::from_secs(seconds) + Self::GRACE;
        Ok(Events::new(body.await?, lasts))
    }

    pub(super) async fn read<T: Object>(&mut self) -> Result<Option<Change<T>>, Fault> {
        let Some(events) = &mut self.events else {
            return Ok(None);
        };
        let settles_at = self.settles_at;
        let settled = async {
            match settles_at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let next = tokio::select! {
            next = events.next::<T>() => next,
            () = settled => {
                self.succeeded();
                return Ok(Some(Change::Live));
            }
        };
        match next {
            Ok(Some(event)) => self.take(event),
            Ok(None) => {
                self.ended();
                Ok(None)
            }
            Err(broken) => {
                let was_short = events.age() < Self::SHORT;
                self.events = None;
                let fault = self.broken(broken);
                match was_short || self.failing {
                    true => Err(fault),
                    // It was fine until now, so it is opened again before anything is said.
                    false => Ok(None),
                }
            }
        }
    }

    fn take<T: Object>(&mut self, event: Event<T>) -> Result<Option<Change<T>>, Fault> {
        if let News::Error(status) = event.news {
            return Err(self.connection.said(status));
        }
        let was_failing = self.failing;
        self.succeeded();
        if let Some(version) = event.version {
            self.marks.set(&version);
            self.position = Some(version);
        }
        Ok(match event.news {
            News::Applied(object) => Some(Change::Applied(object)),
            News::Deleted(name) => Some(Change::Deleted(name)),
            _ => was_failing.then_some(Change::Live),
        })
    }

    /// The watch has come to its orderly end.
    fn ended(&mut self) {
        let Some(events) = self.events.take() else {
            return;
        };
        if events.age() < Self::SHORT {
            let step = self.backoff.next_delay();
            self.pause(step);
        }
        // A server that has gone back in time says nothing at all, not even a bookmark, until it
        // comes to where we are. Where nobody else can find that out, silence means to begin anew.
        if !events.heard_anything() && self.marks.unwatched.load(Ordering::Relaxed) {
            self.position = None;
        }
    }

    pub(super) fn broken(&self, broken: Broken) -> Fault {
        match broken {
            Broken::Connection(cause) => self.connection.broken(cause).into(),
            Broken::Silent => self.timed_out("the watch is silent beyond its end", Self::GRACE),
            Broken::Unreadable(cause) => {
                let message = format!("an event of {} that can't be read: {cause}", self.path);
                self.connection
                    .error(ProviderErrorKind::BadAnswer, message)
                    .into()
            }
        }
    }

    fn timed_out(&self, what: &str, after: Duration) -> Fault {
        let message = format!("{what}: nothing in {}", humantime::format_duration(after));
        self.connection
            .error(ProviderErrorKind::TimedOut { after }, message)
            .into()
    }
}
