//! Watching: what is there, if it is asked for, and then every change, until the time is up.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, interval_at, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::form::Shown;
use super::list::not_before;
use super::options;
use crate::app::App;
use crate::http::{Call, Reply, Scope, Status};
use crate::requests::OpenWatch;
use crate::store::{Change, Object, Selector};

/// How long a watch lasts whose client doesn't say, in seconds.
const LASTING: std::ops::Range<u64> = 1800..3600;

/// The reader is gone, or too slow to be waited for.
struct Lost;

/// One watch.
struct Watch {
    app: Arc<App>,
    shown: Shown,
    namespace: Option<String>,
    selector: Selector,
    /// All changes up to this revision have been sent.
    seen: u64,
    with_bookmarks: bool,
    has_columns: bool,
    sender: mpsc::Sender<Bytes>,
    _open: OpenWatch,
}

/// How a watch begins.
enum Start {
    /// With what is there, once the cache is at this revision; then with a bookmark, if so.
    Initial { not_before: u64, says_end: bool },
    /// With the changes after this revision.
    After(u64),
    /// With the changes after now.
    Now,
}

pub(super) async fn answer(
    app: Arc<App>,
    call: &Call,
    scope: &Scope,
    end: CancellationToken,
) -> Result<Reply, Status> {
    options::check_watch(call, !app.faults.is_watch_list_off())?;
    let shown = Shown::of(call, scope.kind)?;
    let selector = options::selector(call)?;
    let revision = options::revision(call)?;
    let lasting = options::timeout(call)?;
    let wants_initial = match call.query.get("sendInitialEvents") {
        "" => None,
        _ => Some(call.query.is_set("sendInitialEvents")),
    };
    let start = match (wants_initial, revision) {
        (Some(true), revision) => {
            if revision.is_none() {
                // What is newest is asked of etcd.
                app.faults.etcd().await;
            }
            Start::Initial {
                not_before: revision.unwrap_or(0),
                says_end: true,
            }
        }
        (None, None | Some(0)) => Start::Initial {
            not_before: 0,
            says_end: false,
        },
        (Some(false), None | Some(0)) => Start::Now,
        (_, Some(revision)) => Start::After(revision),
    };
    let lasting = lasting
        .unwrap_or_else(|| Duration::from_secs(app.with_random(|random| random.u64(LASTING))));
    let (reply, sender) = Reply::stream();
    let watch = Watch {
        _open: app.requests.open_watch(),
        shown,
        namespace: scope.namespace.clone(),
        selector,
        seen: 0,
        with_bookmarks: call.query.is_set("allowWatchBookmarks"),
        has_columns: false,
        sender,
        app,
    };
    let until = Instant::now() + lasting;
    tokio::spawn(async move {
        let reader = watch.sender.clone();
        tokio::select! {
            // Whatever the outcome, the stream ends.
            _ = watch.run(start, until) => {}
            () = end.cancelled() => {}
            () = reader.closed() => {}
        }
    });
    Ok(reply)
}

impl Watch {
    async fn run(mut self, start: Start, until: Instant) -> Result<(), Lost> {
        // Before the first look, so that nothing falls between.
        let mut changes = self.app.store.changes(self.shown.kind);
        match start {
            Start::Initial { says_end: true, .. } if self.app.faults.does_watch_list_fail() => {
                let why = "a watch stream was requested by the client but the required storage \
                           feature RequestWatchProgress is disabled";
                return self.send_error(&Status::internal(why)).await;
            }
            Start::Initial {
                not_before,
                says_end,
            } => self.send_initial(not_before, says_end).await?,
            Start::Now => self.seen = self.app.store.read().revision(),
            Start::After(revision) => {
                self.seen = revision;
                let oldest = {
                    let state = self.app.store.read();
                    state.oldest_watch(self.shown.kind)
                };
                if revision < oldest {
                    return self.send_error(&Status::expired(revision, oldest)).await;
                }
            }
        }
        let settings = &self.app.settings;
        let every = settings.bookmark_interval;
        let mut bookmarks = interval_at(Instant::now() + every, every);
        let last = until.checked_sub(settings.last_bookmark);
        let last = sleep_until(last.unwrap_or(until));
        let end = sleep_until(until);
        tokio::pin!(last, end);
        let mut is_last_due = true;
        loop {
            changes.borrow_and_update();
            self.send_changes().await?;
            tokio::select! {
                changed = changes.changed() => changed.map_err(|_| Lost)?,
                _ = bookmarks.tick() => self.send_bookmark(false).await?,
                () = &mut last, if is_last_due => {
                    is_last_due = false;
                    self.send_bookmark(false).await?;
                }
                () = &mut end => return Ok(()),
            }
        }
    }

    async fn send_initial(&mut self, revision: u64, says_end: bool) -> Result<(), Lost> {
        if revision > 0
            && let Err(refusal) = not_before(&self.app, revision).await
        {
            self.send_error(&refusal).await?;
            return Err(Lost);
        }
        let objects: Vec<Arc<Object>> = {
            let state = self.app.store.read();
            self.seen = state.revision();
            let all = state.objects(self.shown.kind, self.namespace.as_deref());
            all.filter(|it| self.selector.matches(it))
                .cloned()
                .collect()
        };
        for object in objects {
            self.send_event("ADDED", &object).await?;
        }
        if says_end {
            self.send_bookmark(true).await?;
        }
        Ok(())
    }

    async fn send_changes(&mut self) -> Result<(), Lost> {
        let (changes, revision) = {
            let state = self.app.store.read();
            // What has been dropped can't be sent any more.
            let changes = state.unsent(self.shown.kind, self.seen).ok_or(Lost)?;
            (changes, state.revision())
        };
        for change in changes {
            if let Some((event, object)) = self.event(&change) {
                self.send_event(event, object).await?;
            }
            self.seen = change.revision;
        }
        // Other kinds' changes count too, but a revision yet to come stays what it is.
        self.seen = self.seen.max(revision);
        Ok(())
    }

    /// What a change is to those who see only what they selected.
    fn event<'a>(&self, change: &'a Change) -> Option<(&'static str, &'a Object)> {
        let sees = |object: &&Arc<Object>| {
            let namespace = self.namespace.as_ref();
            namespace.is_none_or(|it| *it == object.key.namespace) && self.selector.matches(object)
        };
        let before = change.before.as_ref().filter(sees);
        let after = change.after.as_ref().filter(sees);
        match (before, after) {
            (None, Some(after)) => Some(("ADDED", after)),
            (Some(_), Some(after)) => Some(("MODIFIED", after)),
            (Some(_), None) => {
                let gone = change.gone.as_ref().or(change.after.as_ref())?;
                Some(("DELETED", gone))
            }
            (None, None) => None,
        }
    }

    async fn send_event(&mut self, event: &str, object: &Object) -> Result<(), Lost> {
        let object = self.shown.one(object, !self.has_columns);
        self.has_columns = true;
        self.send(event, &object).await
    }

    async fn send_bookmark(&mut self, ends_initial: bool) -> Result<(), Lost> {
        let current = self.app.store.read().revision();
        if !self.with_bookmarks || self.seen > current {
            return Ok(());
        }
        let object = self.shown.bookmark(self.seen, ends_initial);
        self.send("BOOKMARK", &object).await
    }

    async fn send_error(&mut self, status: &Status) -> Result<(), Lost> {
        let object = status.to_json().to_string();
        self.send("ERROR", object.as_bytes()).await
    }

    async fn send(&mut self, event: &str, object: &[u8]) -> Result<(), Lost> {
        let mut line = format!(r#"{{"type":"{event}","object":"#).into_bytes();
        line.extend_from_slice(object);
        line.extend_from_slice(b"}\n");
        let line = Bytes::from(line);
        let (patience, most) = self.app.settings.slow_reader;
        loop {
            // Reserving loses nothing when it is given up.
            match timeout(patience, self.sender.reserve()).await {
                Ok(place) => {
                    place.map_err(|_| Lost)?.send(line);
                    return Ok(());
                }
                Err(_) => {
                    let state = self.app.store.read();
                    if state.count_after(self.shown.kind, self.seen) > most {
                        return Err(Lost);
                    }
                }
            }
        }
    }
}
