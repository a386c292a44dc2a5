//! Watches: the existing objects if requested, then each change, until the timeout.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::options::Options;
use crate::cluster::Cluster;
use crate::http::request::Scope;
use crate::http::response::{self, Response};
use crate::http::status::Status;
use crate::kind::Kind;
use crate::request_log::OpenWatch;
use crate::store::object::Object;
use crate::store::selector::Selector;
use crate::store::watch_cache::Change;

/// How long a watch lasts if the client sets no timeout: the API server's minimum.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1800);

pub(super) async fn answer(
    cluster: &Arc<Cluster>,
    scope: &Scope,
    options: Options,
    shutdown: CancellationToken,
) -> Result<Response, Status> {
    check(cluster, &options)?;
    let start = match options.revision {
        None | Some(0) => Start::Initial {
            ends_with_bookmark: options.sends_initial_events,
        },
        Some(_) if options.sends_initial_events => {
            return Err(Status::unsupported("a streamed list at a resource version"));
        }
        Some(revision) => Start::After(revision),
    };
    if options.sends_initial_events && options.revision.is_none() {
        // The latest state is read from etcd.
        cluster.faults.etcd().await;
    }
    // Created before the watch counts as open, so that it misses no notification.
    let ended = Arc::clone(&cluster.watch_end).notified_owned();
    let until = Instant::now() + options.timeout.unwrap_or(DEFAULT_TIMEOUT);
    let (response, sender) = response::stream();
    let watch = Watch {
        _open: cluster.requests.open_watch(),
        cluster: Arc::clone(cluster),
        kind: scope.kind,
        namespace: scope.namespace.clone(),
        selector: options.selector,
        sent: 0,
        allows_bookmarks: options.allows_bookmarks,
        sender,
    };
    tokio::spawn(async move {
        let reader = watch.sender.clone();
        tokio::select! {
            // The stream ends in any case, so the result does not matter.
            _ = watch.run(start, until) => {}
            () = ended => {}
            () = shutdown.cancelled() => {}
            () = reader.closed() => {}
        }
    });
    Ok(response)
}

fn check(cluster: &Cluster, options: &Options) -> Result<(), Status> {
    if options.sends_initial_events && cluster.faults.is_watch_list_disabled() {
        return Err(Status::invalid_options(
            "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the \
             WatchList feature gate is enabled",
        ));
    }
    if options.sends_initial_events != options.is_not_older_than {
        return Err(Status::invalid_options(
            "resourceVersionMatch: Forbidden: sendInitialEvents requires setting \
             resourceVersionMatch to NotOlderThan",
        ));
    }
    Ok(())
}

/// The reader has disconnected, or is too slow.
struct Closed;

/// How a watch begins.
enum Start {
    /// With all objects, and perhaps a bookmark that marks their end.
    Initial { ends_with_bookmark: bool },
    /// With the changes after this revision.
    After(u64),
}

/// One watch.
struct Watch {
    cluster: Arc<Cluster>,
    kind: Kind,
    namespace: String,
    selector: Selector,
    /// All changes up to this revision have been sent.
    sent: u64,
    allows_bookmarks: bool,
    sender: mpsc::Sender<Bytes>,
    _open: OpenWatch,
}

impl Watch {
    async fn run(mut self, start: Start, until: Instant) -> Result<(), Closed> {
        // Before the first look at the store, so that no change is missed.
        let mut changes = self.cluster.store().subscribe(self.kind);
        match start {
            Start::Initial { ends_with_bookmark } => {
                if ends_with_bookmark && self.cluster.faults.is_watch_list_failing() {
                    let why = "a watch stream was requested by the client but the required \
                               storage feature RequestWatchProgress is disabled";
                    return self.send_error(&Status::internal(why)).await;
                }
                self.send_initial(ends_with_bookmark).await?;
            }
            Start::After(revision) => {
                self.sent = revision;
                let oldest = {
                    let store = self.cluster.store();
                    store.watch_cache(self.kind).oldest_start()
                };
                if revision < oldest {
                    return self.send_error(&Status::expired(revision, oldest)).await;
                }
            }
        }
        let settings = &self.cluster.settings;
        let every = settings.bookmark_interval;
        let mut bookmarks = interval_at(Instant::now() + every, every);
        let last_bookmark = until.checked_sub(settings.last_bookmark).unwrap_or(until);
        let last_bookmark = sleep_until(last_bookmark);
        let end = sleep_until(until);
        tokio::pin!(last_bookmark, end);
        let mut is_last_bookmark_due = true;
        loop {
            changes.borrow_and_update();
            self.send_changes().await?;
            tokio::select! {
                changed = changes.changed() => changed.map_err(|_| Closed)?,
                _ = bookmarks.tick() => self.send_bookmark(false).await?,
                () = &mut last_bookmark, if is_last_bookmark_due => {
                    is_last_bookmark_due = false;
                    self.send_bookmark(false).await?;
                }
                () = &mut end => return Ok(()),
            }
        }
    }

    async fn send_initial(&mut self, ends_with_bookmark: bool) -> Result<(), Closed> {
        let objects: Vec<Arc<Object>> = {
            let store = self.cluster.store();
            self.sent = store.revision();
            let objects = store.objects(self.kind, &self.namespace);
            let objects = objects.filter(|it| self.selector.matches(it));
            objects.cloned().collect()
        };
        for object in objects {
            self.send("ADDED", &object.with_kind(self.kind)).await?;
        }
        if ends_with_bookmark {
            self.send_bookmark(true).await?;
        }
        Ok(())
    }

    async fn send_changes(&mut self) -> Result<(), Closed> {
        let (changes, revision) = {
            let store = self.cluster.store();
            // Changes that were dropped cannot be sent any more.
            let changes = store.watch_cache(self.kind).after(self.sent);
            let changes: Vec<Change> = changes.ok_or(Closed)?.cloned().collect();
            (changes, store.revision())
        };
        for change in changes {
            if let Some(event) = self.event(&change) {
                self.send(event, &change.current.with_kind(self.kind))
                    .await?;
            }
            self.sent = change.current.revision;
        }
        // Changes of other kinds also raise the revision. A future revision is kept.
        self.sent = self.sent.max(revision);
        Ok(())
    }

    /// The event of a change for a client that sees only the objects that it selects.
    fn event(&self, change: &Change) -> Option<&'static str> {
        let sees =
            |object: &Object| object.key.is_in(&self.namespace) && self.selector.matches(object);
        let was_seen = change.before.as_deref().is_some_and(sees);
        let is_seen = !change.is_deletion && sees(&change.current);
        match (was_seen, is_seen) {
            (false, true) => Some("ADDED"),
            (true, true) => Some("MODIFIED"),
            (true, false) => Some("DELETED"),
            (false, false) => None,
        }
    }

    async fn send_bookmark(&mut self, ends_initial_events: bool) -> Result<(), Closed> {
        let current = self.cluster.store().revision();
        if !self.allows_bookmarks || self.sent > current {
            return Ok(());
        }
        let mut meta = json!({ "resourceVersion": self.sent.to_string() });
        if ends_initial_events {
            meta["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let (kind, api_version) = (self.kind.name(), self.kind.api_version());
        let object = json!({ "kind": kind, "apiVersion": api_version, "metadata": meta });
        self.send("BOOKMARK", object.to_string().as_bytes()).await
    }

    async fn send_error(&mut self, status: &Status) -> Result<(), Closed> {
        let object = status.to_json().to_string();
        self.send("ERROR", object.as_bytes()).await
    }

    async fn send(&mut self, event: &str, object: &[u8]) -> Result<(), Closed> {
        let mut line = format!(r#"{{"type":"{event}","object":"#).into_bytes();
        line.extend_from_slice(object);
        line.extend_from_slice(b"}\n");
        let (max_stall, most) = self.cluster.settings.slow_reader;
        loop {
            // Giving up a reservation loses nothing.
            if let Ok(permit) = timeout(max_stall, self.sender.reserve()).await {
                permit.map_err(|_| Closed)?.send(line.into());
                return Ok(());
            }
            let store = self.cluster.store();
            if store.watch_cache(self.kind).count_after(self.sent) > most {
                return Err(Closed);
            }
        }
    }
}
