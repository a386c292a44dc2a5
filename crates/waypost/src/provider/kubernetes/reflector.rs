//! One kind of object of one namespace, listed once and followed from there on.
//!
//! What is listed begins as a watch that tells all there is first (WatchList, KEP-3157), which is
//! the cheapest for the server and works while its etcd doesn't. Where the server can't do that, it
//! is a LIST out of the server's cache and a watch from there on. The rules of following are those
//! of "Kubernetes API Concepts", "Efficient detection of changes":
//!
//! - A list counts when it is whole. An attempt that fails on the way changes nothing.
//! - A watch that ends is begun again where it ended. It is asked to end after 30 to 60 s, so that a
//!   connection on which nothing comes any more is noticed by then.
//! - 410 means that the place to go on from is no longer kept: all is listed again, at once.
//! - Other failures are told, and tried again after a growing pause, up to 30 s. A refusal costs one
//!   request each time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use super::{
    access::READ,
    connection::{Ask, Connection},
    events::{Broken, Event, Events, News},
    fault::Fault,
    wire::{List, Object},
};
use crate::{backoff::Backoff, error::ProviderErrorKind};

/// What a reflector tells.
#[derive(Debug)]
pub(super) enum Change<T> {
    /// All there is; what isn't in it is gone.
    Whole(Vec<T>),
    /// An object came or changed.
    Applied(T),
    /// The object of this name is gone.
    Deleted(Box<str>),
    /// It follows again; nothing else is new.
    Live,
    /// An attempt failed. What was told before is all that is known.
    Failed(Fault),
}

/// Which objects to follow.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    pub(super) namespace: Arc<str>,
    /// `labelSelector` or `fieldSelector` and its value, where not all are wanted.
    pub(super) only: Option<(&'static str, String)>,
}

impl Selection {
    pub(super) fn path<T: Object>(&self) -> String {
        T::path(&self.namespace)
    }
}

/// What others may know of a reflector, and it of them.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// The resource version that it has come to; 0 before it knows one, or where they are no numbers.
    seen: AtomicU64,
    /// Whether nobody else can tell that the server has gone back in time.
    pub(super) unwatched: AtomicBool,
}

impl Marks {
    pub(super) fn seen(&self) -> u64 {
        self.seen.load(Ordering::Relaxed)
    }

    fn set(&self, version: &str) {
        self.seen.store(numeric(version), Ordering::Relaxed);
    }
}

/// Resource versions are opaque, but those of Kubernetes are numbers that grow (KEP-5504).
pub(super) fn numeric(version: &str) -> u64 {
    version.parse().unwrap_or(0)
}

/// A running reflector; it ends when it is dropped.
pub(super) struct Reflector<T> {
    changes: BoxStream<'static, Change<T>>,
    /// How often it was told to start over. News of the same number means to resume.
    orders: watch::Sender<u64>,
}

impl<T: Object> Reflector<T> {
    pub(super) fn begin(
        connection: Arc<Connection>,
        selection: &Selection,
        marks: Arc<Marks>,
    ) -> Self {
        let (orders, taken) = watch::channel(0);
        let work = Work {
            connection,
            path: selection.path::<T>(),
            namespace: Arc::clone(&selection.namespace),
            only: selection.only.clone(),
            marks,
            orders: taken,
            started_over: 0,
            position: None,
            events: None,
            paused_until: None,
            settles_at: None,
            failing: false,
            can_stream: true,
            refusals: 0,
            gone_at: None,
            owed: None,
            backoff: Backoff::default(),
        };
        let changes = stream::unfold(work, |mut work| async move {
            let change = work.next::<T>().await;
            Some((change, work))
        });
        Self {
            changes: changes.boxed(),
            orders,
        }
    }

    /// The next change. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Change<T> {
        match self.changes.next().await {
            Some(change) => change,
            None => std::future::pending().await,
        }
    }

    /// Opens the watch again where it is, now.
    pub(super) fn resume(&self) {
        self.orders.send_modify(|_| ());
    }

    /// Lists all again, now.
    pub(super) fn start_over(&self) {
        self.orders.send_modify(|times| *times += 1);
    }
}

struct Work {
    connection: Arc<Connection>,
    path: String,
    namespace: Arc<str>,
    only: Option<(&'static str, String)>,
    marks: Arc<Marks>,
    orders: watch::Receiver<u64>,
    started_over: u64,
    /// Where to go on from; `None` if all is to be listed.
    position: Option<Box<str>>,
    /// The open watch.
    events: Option<Events>,
    paused_until: Option<Instant>,
    /// When a watch that was opened after a failure counts as live, if nothing is heard before.
    settles_at: Option<Instant>,
    failing: bool,
    /// Whether a list may come as a watch.
    can_stream: bool,
    /// How many attempts in a row were refused.
    refusals: u32,
    /// When 410 was answered last.
    gone_at: Option<Instant>,
    /// A failure that is to be told after what went before it.
    owed: Option<Fault>,
    backoff: Backoff,
}

/// Why a list did not come as a watch.
enum NoStream {
    /// The server doesn't do that, so the list is to be asked for in the old way.
    Unknown,
    Failed(Fault),
}

impl Work {
    /// For how long a server may be silent before it has answered, and between the parts of a list.
    /// Less than look-ups wait, so that they can tell what is wrong.
    const PATIENCE: Duration = Duration::from_secs(4);
    /// For how long a LIST may take as a whole.
    const LIST_DEADLINE: Duration = Duration::from_secs(30);
    /// A watch is asked to last a random time between these, in seconds.
    const WINDOW: std::ops::Range<u64> = 30..60;
    /// How long after its time the end of a watch may come.
    const GRACE: Duration = Duration::from_secs(5);
    /// A watch that breaks sooner than this after it was opened is a failure of its own.
    const SHORT: Duration = Duration::from_secs(1);
    /// A watch that goes on from somewhere is refused by its first event, if at all.
    const SETTLING: Duration = Duration::from_millis(100);

    async fn next<T: Object>(&mut self) -> Change<T> {
        loop {
            let mut orders = self.orders.clone();
            tokio::select! {
                biased;
                changed = orders.changed() => {
                    if changed.is_err() {
                        return std::future::pending().await;
                    }
                    let times = *orders.borrow_and_update();
                    self.orders = orders;
                    self.obey(times);
                }
                change = self.step() => match change {
                    Ok(Some(change)) => return change,
                    Ok(None) => {}
                    Err(fault) => if let Some(fault) = self.failed(fault) {
                        let explained = self.connection.explain(&self.namespace, &READ, fault);
                        return Change::Failed(explained.await);
                    }
                }
            }
        }
    }

    fn obey(&mut self, started_over: u64) {
        self.events = None;
        self.paused_until = None;
        if started_over != std::mem::replace(&mut self.started_over, started_over) {
            self.position = None;
        }
    }

    /// One step. An order may cut it short anywhere, so what it leaves behind is always whole.
    async fn step<T: Object>(&mut self) -> Result<Option<Change<T>>, Fault> {
        if let Some(fault) = self.owed.take() {
            return Err(fault);
        }
        if let Some(until) = self.paused_until {
            sleep_until(until).await;
            self.paused_until = None;
        }
        match (&self.events, &self.position) {
            (Some(_), _) => self.read().await,
            (None, Some(_)) => self.resume().await.map(|()| None),
            (None, None) => self.list().await.map(Some),
        }
    }

    /// Decides when to try again. Gives back what is to be told.
    fn failed(&mut self, fault: Fault) -> Option<Fault> {
        self.events = None;
        self.settles_at = None;
        if fault.is_refusal() {
            self.refusals = self.refusals.saturating_add(1);
        }
        if fault.is_gone() {
            self.position = None;
            let again = self.gone_at.replace(Instant::now());
            if again.is_none_or(|earlier| earlier.elapsed() > Duration::from_secs(5)) {
                // Nothing is wrong with the server; but not all clients in the same instant.
                self.pause(Duration::from_millis(100).mul_f64(fastrand::f64()));
                return None;
            }
        }
        self.failing = true;
        let step = self.backoff.next_delay();
        self.pause(step.max(fault.retry_after.unwrap_or_default()));
        Some(fault)
    }

    fn pause(&mut self, time: Duration) {
        self.paused_until = Some(Instant::now() + time);
    }

    fn succeeded(&mut self) {
        self.failing = false;
        self.settles_at = None;
        self.refusals = 0;
        self.backoff.reset();
    }

    // --- the list at the beginning ---

    async fn list<T: Object>(&mut self) -> Result<Change<T>, Fault> {
        // Who may not watch may be allowed to list, and the other way round. At first both are
        // tried; then one of them each time, so that a refusal costs one request.
        if self.can_stream && self.refusals.is_multiple_of(2) {
            match self.streamed_list().await {
                Ok(items) => {
                    self.succeeded();
                    return Ok(Change::Whole(items));
                }
                Err(NoStream::Unknown) => self.can_stream = false,
                Err(NoStream::Failed(fault)) if fault.is_refusal() && self.refusals == 0 => {
                    self.refusals = 1;
                }
                Err(NoStream::Failed(fault)) => return Err(fault),
            }
        }
        let items = self.plain_list().await?;
        match self.resume().await {
            Ok(()) => self.succeeded(),
            // The list stands, but nobody tells how it changes.
            Err(fault) => {
                self.position = None;
                self.owed = Some(fault);
            }
        }
        Ok(Change::Whole(items))
    }

    /// A watch that tells first what there is, and then how it changes. Any state will do that the
    /// server has, so that it begins even while the server has lost its etcd.
    async fn streamed_list<T: Object>(&mut self) -> Result<Vec<T>, NoStream> {
        let opened = self.open(
            "0",
            &[
                ("sendInitialEvents", "true"),
                ("resourceVersionMatch", "NotOlderThan"),
            ],
        );
        let mut events = opened.await.map_err(|fault| match fault.code() {
            400 | 422 => NoStream::Unknown,
            _ => NoStream::Failed(fault),
        })?;
        let mut items = Vec::new();
        loop {
            // A server that doesn't know this sort of list never says that it is at its end.
            let next = timeout(Self::PATIENCE, events.next::<T>()).await;
            let next = next.map_err(|_| NoStream::Unknown)?;
            let broken = |broken| NoStream::Failed(self.broken(broken));
            let Some(Event { version, news }) = next.map_err(broken)? else {
                return Err(NoStream::Failed(self.cut_off()));
            };
            match news {
                News::Applied(item) => items.push(item),
                // All is known up to here, and from here on it is followed.
                News::Bookmark { ends_list: true } => {
                    self.events = Some(events);
                    if let Some(version) = version {
                        self.marks.set(&version);
                        self.position = Some(version);
                    }
                    return Ok(items);
                }
                News::Deleted(_) | News::Bookmark { .. } => {}
                News::Error(status) => {
                    let fault = self.connection.said(status);
                    return Err(NoStream::Failed(fault));
                }
            }
        }
    }

    /// A LIST of what the server has in its cache, all in one.
    async fn plain_list<T: Object>(&mut self) -> Result<Vec<T>, Fault> {
        let mut query = vec![("resourceVersion", "0")];
        query.extend(
            self.only
                .as_ref()
                .map(|(key, value)| (*key, value.as_str())),
        );
        let ask = Ask::new(&self.path, &query);
        let list = self.connection.get::<List<T>>(ask, Self::LIST_DEADLINE);
        // What it couldn't do a while ago, another server behind the same address may do now.
        let list = list.await.inspect_err(|_| self.can_stream = true)?;
        self.marks.set(&list.metadata.resource_version);
        self.position = Some(list.metadata.resource_version);
        Ok(list.items.unwrap_or_default())
    }

    // --- following ---

    async fn resume(&mut self) -> Result<(), Fault> {
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

    async fn open(&mut self, version: &str, more: &[(&str, &str)]) -> Result<Events, Fault> {
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

    async fn read<T: Object>(&mut self) -> Result<Option<Change<T>>, Fault> {
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

    // --- the words for what goes wrong ---

    fn broken(&self, broken: Broken) -> Fault {
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

    fn cut_off(&self) -> Fault {
        let message = "the list broke off".to_owned();
        self.connection
            .error(ProviderErrorKind::Unreachable, message)
            .into()
    }

    fn timed_out(&self, what: &str, after: Duration) -> Fault {
        let message = format!("{what}: nothing in {}", humantime::format_duration(after));
        self.connection
            .error(ProviderErrorKind::TimedOut { after }, message)
            .into()
    }
}
