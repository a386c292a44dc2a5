//! The state machine of a reflector: what to request next, and when to try again.

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use waypost_core::supervision::Backoff;

use super::list_watch::{ListWatch, WatchListError};
use super::progress::{WatchProgress, parse_resource_version};
use crate::error::RequestError;
use crate::namespaces::Namespaces;
use crate::object_key::ObjectKey;
use crate::rbac::{DISCOVERY, RbacAdvisor};
use crate::watch_stream::{WatchEvent, WatchEventContent, WatchStream};

/// A report of a reflector.
#[derive(Debug)]
pub(crate) enum ReflectorEvent<T> {
    /// All objects; known objects that are not among them were deleted. With a `watch_error` the list is
    /// complete but will become outdated, because no watch could be opened after it. With `rolled_back`
    /// it has an earlier state than the one seen before.
    Listed {
        objects: Vec<T>,
        watch_error: Option<RequestError>,
        rolled_back: Option<RequestError>,
    },
    /// An object was added or modified.
    Applied(T),
    /// This object was deleted.
    Deleted(ObjectKey),
    /// The watch works again after a failure; no object has changed.
    Resumed,
    /// The watch works, and no object has changed: the server has sent a bookmark.
    Confirmed,
    /// An attempt failed. The objects known so far may be outdated.
    Failed(RequestError),
}

/// What explains missing permissions for discovery, and the namespaces that need them.
pub(super) struct Advice {
    pub(super) advisor: Arc<RbacAdvisor>,
    pub(super) namespaces: Namespaces,
}

pub(super) struct Driver {
    list_watch: ListWatch,
    /// Explains missing permissions for discovery in a namespace.
    advice: Option<Advice>,
    progress: Arc<WatchProgress>,
    /// The number of relists that were requested. A notification with an unchanged number means: reopen
    /// the watch.
    relists: watch::Receiver<u64>,
    /// The number of relists that were requested before the latest notification.
    relists_seen: u64,
    /// Where to continue from; `None` to list first.
    resource_version: Option<Box<str>>,
    /// The open watch.
    watch: Option<WatchStream>,
    paused_until: Option<Instant>,
    /// When a watch that was opened after a failure counts as working, if no event arrives earlier.
    settles_at: Option<Instant>,
    is_failing: bool,
    /// Whether to try WatchList before LIST.
    use_watch_list: bool,
    /// How many attempts in a row were denied.
    denials: u32,
    last_gone: Option<Instant>,
    backoff: Backoff,
}

impl Driver {
    /// A watch that fails or ends sooner than this after it was opened is followed by a pause.
    const MIN_WATCH_AGE: Duration = Duration::from_secs(1);
    /// A watch whose resource version has expired fails with its first event, within this time.
    const SETTLE_TIME: Duration = Duration::from_millis(100);
    /// The longest `Retry-After` that is respected.
    const MAX_RETRY_AFTER: Duration = Duration::from_secs(30);
    /// A second 410 within this time is a failure.
    const GONE_AGAIN: Duration = Duration::from_secs(5);
    /// The longest pause before the list that follows a 410, so that not all clients list at once.
    const RELIST_JITTER: Duration = Duration::from_millis(100);

    pub(super) fn new(
        list_watch: ListWatch,
        advice: Option<Advice>,
        progress: Arc<WatchProgress>,
        relists: watch::Receiver<u64>,
    ) -> Self {
        Self {
            list_watch,
            advice,
            progress,
            relists,
            relists_seen: 0,
            resource_version: None,
            watch: None,
            paused_until: None,
            settles_at: None,
            is_failing: false,
            use_watch_list: true,
            denials: 0,
            last_gone: None,
            backoff: Backoff::default(),
        }
    }

    /// The next event.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> ReflectorEvent<T> {
        loop {
            let mut relists = self.relists.clone();
            tokio::select! {
                biased;
                changed = relists.changed() => {
                    if changed.is_err() {
                        return std::future::pending().await;
                    }
                    let requested = *relists.borrow_and_update();
                    self.relists = relists;
                    self.restart(requested);
                }
                event = self.step() => match event {
                    Ok(Some(ReflectorEvent::Listed {
                        objects, watch_error: Some(error), rolled_back,
                    })) => {
                        let watch_error = self.handle_failure(error).await;
                        return ReflectorEvent::Listed { objects, watch_error, rolled_back };
                    }
                    Ok(Some(event)) => return event,
                    Ok(None) => {}
                    Err(error) => if let Some(error) = self.handle_failure(error).await {
                        return ReflectorEvent::Failed(error);
                    }
                }
            }
        }
    }

    /// Takes one step: pauses, lists, opens the watch or reads an event. A restart can cancel it at
    /// any point, so the state must be consistent at each `await`.
    async fn step<T: DeserializeOwned>(
        &mut self,
    ) -> Result<Option<ReflectorEvent<T>>, RequestError> {
        if let Some(until) = self.paused_until {
            sleep_until(until).await;
            self.paused_until = None;
        }
        if self.watch.is_some() {
            self.read().await
        } else if self.resource_version.is_some() {
            self.open_watch().await.map(|()| None)
        } else {
            self.list().await.map(Some)
        }
    }

    /// Reopens the watch, or lists if the number of requested relists has changed.
    fn restart(&mut self, relists: u64) {
        self.watch = None;
        self.paused_until = None;
        if relists != std::mem::replace(&mut self.relists_seen, relists) {
            self.resource_version = None;
        }
    }

    // --- list ---

    async fn list<T: DeserializeOwned>(&mut self) -> Result<ReflectorEvent<T>, RequestError> {
        // The client may be allowed to watch but not to list, or the reverse. The first attempt
        // tries both. After a denial, attempts alternate, so that a retry costs one request.
        if self.use_watch_list && self.denials.is_multiple_of(2) {
            match self.list_watch.watch_list().await {
                Ok(list) => {
                    self.watch = Some(list.watch);
                    let rolled_back = self.rolled_back(list.resource_version.as_deref());
                    self.advance(list.resource_version);
                    self.reset_failures();
                    return Ok(ReflectorEvent::Listed {
                        objects: list.objects,
                        watch_error: None,
                        rolled_back,
                    });
                }
                Err(WatchListError::Unsupported) => self.use_watch_list = false,
                Err(WatchListError::Failed(error))
                    if error.is_access_denied() && self.denials == 0 =>
                {
                    self.denials = 1;
                }
                Err(WatchListError::Failed(error)) => return Err(error),
            }
        }
        let list = self.list_watch.list().await;
        // Another server behind the same address may support WatchList.
        let list = list.inspect_err(|_| self.use_watch_list = true)?;
        let rolled_back = self.rolled_back(Some(&list.metadata.resource_version));
        self.advance(Some(list.metadata.resource_version));
        let watch_error = match self.open_watch().await {
            Ok(()) => {
                self.reset_failures();
                None
            }
            Err(error) => {
                self.resource_version = None;
                Some(error)
            }
        };
        Ok(ReflectorEvent::Listed {
            objects: list.items.unwrap_or_default(),
            watch_error,
            rolled_back,
        })
    }

    /// The error, if a list has a lower resource version than was seen before.
    fn rolled_back(&self, listed: Option<&str>) -> Option<RequestError> {
        let listed = parse_resource_version(listed?);
        let is_lower = listed != 0 && listed < self.progress.resource_version();
        is_lower.then(|| self.list_watch.client.rolled_back())
    }

    // --- watch ---

    async fn open_watch(&mut self) -> Result<(), RequestError> {
        let resource_version = self.resource_version.clone().unwrap_or_default();
        let watch = self.list_watch.watch(&resource_version).await;
        self.watch = Some(watch.inspect_err(|error| {
            // 400 and 422: the server cannot parse the version, so it is from another cluster.
            if matches!(error.code(), Some(400 | 422)) || error.is_access_denied() {
                self.resource_version = None;
            }
        })?);
        if self.is_failing {
            self.settles_at = Some(Instant::now() + Self::SETTLE_TIME);
        }
        Ok(())
    }

    async fn read<T: DeserializeOwned>(
        &mut self,
    ) -> Result<Option<ReflectorEvent<T>>, RequestError> {
        let Some(watch) = &mut self.watch else {
            return Ok(None);
        };
        let settles_at = self.settles_at;
        let settled = async {
            match settles_at {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        let event = tokio::select! {
            event = watch.next::<T>() => event,
            () = settled => {
                self.reset_failures();
                return Ok(Some(ReflectorEvent::Resumed));
            }
        };
        match event {
            Ok(Some(event)) => self.apply(event),
            Ok(None) => {
                self.end_watch();
                Ok(None)
            }
            Err(error) => {
                let was_short = watch.age() < Self::MIN_WATCH_AGE;
                self.watch = None;
                if was_short || self.is_failing {
                    return Err(self.list_watch.stream_error(error));
                }
                // The watch has worked until now, so it is reopened before anything is reported.
                Ok(None)
            }
        }
    }

    fn apply<T: DeserializeOwned>(
        &mut self,
        event: WatchEvent<T>,
    ) -> Result<Option<ReflectorEvent<T>>, RequestError> {
        if let WatchEventContent::Error(status) = event.content {
            return Err(self.list_watch.client.status_error(status));
        }
        let was_failing = self.is_failing;
        self.reset_failures();
        self.advance(event.resource_version);
        Ok(match event.content {
            WatchEventContent::Applied(object) => Some(ReflectorEvent::Applied(object)),
            WatchEventContent::Deleted(object) => Some(ReflectorEvent::Deleted(object)),
            _ if was_failing => Some(ReflectorEvent::Resumed),
            _ => Some(ReflectorEvent::Confirmed),
        })
    }

    /// The server has ended the watch.
    fn end_watch(&mut self) {
        let Some(watch) = self.watch.take() else {
            return;
        };
        if watch.age() < Self::MIN_WATCH_AGE {
            let pause = self.backoff.next_delay();
            self.pause(pause);
        }
        // A server whose etcd was rolled back sends nothing, not even a bookmark, until it reaches
        // our resource version again. If no probe can detect that, a silent watch is the only sign.
        if !watch.has_received_any() && self.progress.relists_after_silence() {
            self.resource_version = None;
        }
    }

    fn advance(&mut self, resource_version: Option<Box<str>>) {
        if let Some(version) = resource_version {
            self.progress.set_resource_version(&version);
            self.resource_version = Some(version);
        }
    }

    // --- failures ---

    /// Decides when to try again. Returns the error if it is to be reported.
    async fn handle_failure(&mut self, error: RequestError) -> Option<RequestError> {
        self.watch = None;
        self.settles_at = None;
        if error.is_access_denied() {
            self.denials = self.denials.saturating_add(1);
        }
        if error.is_gone() {
            self.resource_version = None;
            let last = self.last_gone.replace(Instant::now());
            if last.is_none_or(|last| last.elapsed() > Self::GONE_AGAIN) {
                // The server works; only our resource version has expired.
                self.pause(Self::RELIST_JITTER.mul_f64(fastrand::f64()));
                return None;
            }
        }
        self.is_failing = true;
        let retry_after = error.retry_after.unwrap_or_default();
        let retry_after = retry_after.min(Self::MAX_RETRY_AFTER);
        let delay = self.backoff.next_delay();
        self.pause(delay.max(retry_after));
        Some(match &self.advice {
            Some(Advice {
                advisor,
                namespaces,
            }) => advisor.explain(namespaces, &DISCOVERY, error).await,
            None => error,
        })
    }

    fn reset_failures(&mut self) {
        self.is_failing = false;
        self.settles_at = None;
        self.denials = 0;
        self.backoff.reset();
    }

    fn pause(&mut self, time: Duration) {
        self.paused_until = Some(Instant::now() + time);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};
    use serde_json::{Value, json};
    use waypost_core::Environment;

    use super::*;
    use crate::client::ApiClient;
    use crate::config::{ConfigSource, KUBECONFIG};
    use crate::error::ApiStatus;
    use crate::watch_stream::Chunks;

    /// A driver whose server can't be reached.
    fn driver() -> Driver {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config");
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "clusters": [{ "name": "c", "cluster": { "server": "https://127.0.0.1:1" } }],
            "contexts": [{ "name": "c", "context": { "cluster": "c" } }],
        });
        std::fs::write(&file, kubeconfig.to_string()).unwrap();
        let environment = Environment::from_iter([(KUBECONFIG, file.display().to_string())]);
        let source = ConfigSource::from_environment(&environment).unwrap();
        let (client, _) = ApiClient::new(source).unwrap();
        let list_watch = ListWatch {
            client: Arc::new(client),
            path: "/api/v1/services".to_owned(),
            selector: None,
        };
        let (_, relists) = watch::channel(0);
        Driver::new(list_watch, None, Arc::default(), relists)
    }

    /// A driver that follows this watch from version 5.
    fn following(chunks: Chunks, max_age: Duration) -> Driver {
        let mut driver = driver();
        driver.resource_version = Some("5".into());
        driver.watch = Some(WatchStream::new(chunks, max_age));
        driver
    }

    fn ended() -> Chunks {
        stream::empty().boxed()
    }

    fn silent() -> Chunks {
        stream::pending().boxed()
    }

    fn gone() -> RequestError {
        let status = ApiStatus {
            code: 410,
            ..ApiStatus::default()
        };
        RequestError::from_status("test", status, "me")
    }

    /// A watch may work for minutes before a proxy cuts it; one that breaks at once is an outage.
    #[tokio::test(start_paused = true)]
    async fn a_broken_watch_is_reported_if_it_was_short_or_the_last_attempt_failed() {
        for (age, is_failing, is_reported) in [
            (Driver::MIN_WATCH_AGE * 2, false, false),
            (Driver::MIN_WATCH_AGE / 2, false, true),
            (Driver::MIN_WATCH_AGE * 2, true, true),
        ] {
            // The server does not end it in time.
            let mut driver = following(silent(), age);
            driver.is_failing = is_failing;
            let result = driver.read::<Value>().await;
            assert_eq!(result.is_err(), is_reported, "{age:?} {is_failing}");
            assert!(driver.watch.is_none());
            assert_eq!(driver.resource_version.as_deref(), Some("5"));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_ends_at_once_is_reopened_after_a_pause() {
        let mut driver = following(ended(), Duration::from_secs(60));
        assert!(driver.read::<Value>().await.unwrap().is_none());
        assert!(driver.paused_until.is_some());
        let mut driver = following(ended(), Duration::from_secs(60));
        tokio::time::advance(Driver::MIN_WATCH_AGE).await;
        assert!(driver.read::<Value>().await.unwrap().is_none());
        assert!(driver.paused_until.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn everything_is_listed_after_a_silent_watch_if_no_probe_detects_a_rollback() {
        let bookmark = json!({
            "type": "BOOKMARK", "object": { "metadata": { "resourceVersion": "6" } },
        });
        for (relists, is_silent, version) in [
            (true, true, None),
            (false, true, Some("5")),
            (true, false, Some("6")),
        ] {
            let line = (!is_silent).then(|| Ok(format!("{bookmark}\n").into()));
            let mut driver = following(stream::iter(line).boxed(), Duration::from_secs(60));
            driver.progress.set_relist_after_silence(relists);
            while driver.watch.is_some() {
                driver.read::<Value>().await.unwrap();
            }
            assert_eq!(
                driver.resource_version.as_deref(),
                version,
                "{relists} {is_silent}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_expired_version_is_an_error_only_if_the_next_one_expires_within_seconds() {
        let mut driver = driver();
        for (wait, is_reported) in [
            (Duration::ZERO, false),
            (Driver::GONE_AGAIN, true),
            (Driver::GONE_AGAIN + Duration::from_millis(1), false),
            (Duration::from_secs(1), true),
        ] {
            tokio::time::advance(wait).await;
            driver.resource_version = Some("5".into());
            let reported = driver.handle_failure(gone()).await;
            assert_eq!(reported.is_some(), is_reported, "{wait:?}");
            assert_eq!(driver.resource_version, None);
            assert!(driver.paused_until.is_some());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_attempt_waits_as_long_as_the_server_asks_within_limits() {
        let pause = async |retry_after: u64| {
            let mut driver = driver();
            let status = ApiStatus {
                code: 429,
                ..ApiStatus::default()
            };
            let mut error = RequestError::from_status("test", status, "me");
            error.retry_after = Some(Duration::from_secs(retry_after));
            assert!(driver.handle_failure(error).await.is_some());
            driver.paused_until.unwrap() - Instant::now()
        };
        assert_eq!(pause(7).await, Duration::from_secs(7));
        assert_eq!(pause(3600).await, Driver::MAX_RETRY_AFTER);
        // The first pause of the backoff.
        assert!(pause(0).await <= Duration::from_secs(1));
    }

    #[test]
    fn a_list_with_an_earlier_version_was_rolled_back() {
        let driver = driver();
        driver.progress.set_resource_version("5");
        for (version, expected) in [
            (Some("4"), true),
            (Some("5"), false),
            (Some("6"), false),
            (Some("opaque"), false),
            (None, false),
        ] {
            assert_eq!(
                driver.rolled_back(version).is_some(),
                expected,
                "{version:?}"
            );
        }
    }
}
