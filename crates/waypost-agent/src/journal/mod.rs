//! Keeping the registry on disk: `--data-dir`.
//!
//! Every change is appended to one file and synced before it is acknowledged. Changes that come
//! while a sync is under way share the next one, so that many clients together are hardly slower
//! than one. At the start, and whenever the file has grown to several times the state it
//! describes, the state is written to a new file that takes the old one's place.

mod log;
mod record;

use std::path::Path;
use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;

pub(crate) use log::{Fault, Log};
pub(crate) use record::{Kept, Record};

use crate::store::Store;

/// What has changed but isn't on disk yet.
#[derive(Debug)]
pub(crate) struct Pending {
    bytes: Vec<u8>,
    /// How many records there have been.
    count: u64,
    wake: Arc<Notify>,
    progress: watch::Sender<Progress>,
}

/// How far the disk is.
#[derive(Clone, Debug, Default)]
struct Progress {
    saved: u64,
    /// Why nothing is saved any more.
    failure: Option<Arc<str>>,
}

/// Reads what was kept in a folder, which is made if it isn't there.
pub(crate) async fn open(folder: &Path) -> Result<(Log, Kept), Fault> {
    let folder = folder.to_owned();
    let opened = spawn_blocking(move || Log::open(&folder)).await;
    let (log, records) = opened.map_err(|gone| Fault::ended(&gone))??;
    let mut kept = Kept::default();
    for record in records {
        kept.take(record);
    }
    Ok((log, kept))
}

impl Pending {
    fn new() -> Self {
        Self {
            bytes: Vec::new(),
            count: 0,
            wake: Arc::default(),
            progress: watch::Sender::default(),
        }
    }

    /// Adds records to those that will be saved next.
    pub(crate) fn push(&mut self, records: &[Record]) {
        if records.is_empty() {
            return;
        }
        for record in records {
            self.count += 1;
            if let Err(error) = log::frame(record, &mut self.bytes) {
                let failure = format!("can't write {record:?} down: {error}");
                self.progress
                    .send_modify(|progress| progress.failure = Some(failure.into()));
            }
        }
        self.wake.notify_one();
    }

    /// Resolves when all that has been pushed so far is on disk. The error is why it never will.
    pub(crate) fn saved(&self) -> impl Future<Output = Result<(), String>> + use<> {
        let (count, mut progress) = (self.count, self.progress.subscribe());
        async move {
            let done = |progress: &Progress| progress.failure.is_some() || progress.saved >= count;
            match progress
                .wait_for(done)
                .await
                .map(|last| last.failure.clone())
            {
                Ok(None) => Ok(()),
                Ok(Some(failure)) => Err(failure.to_string()),
                Err(_) => Err("the registry is being stopped".to_owned()),
            }
        }
    }

    pub(crate) fn take(&mut self) -> (Vec<u8>, u64) {
        (std::mem::take(&mut self.bytes), self.count)
    }
}

/// Writes the present state to a new file and has all changes from now on appended to it. The
/// future does the appending, for ever.
pub(crate) async fn keep(
    store: Arc<Store>,
    log: Log,
) -> Result<impl Future<Output = ()> + use<>, Fault> {
    let pending = Pending::new();
    let (wake, progress) = (Arc::clone(&pending.wake), pending.progress.clone());
    let snapshot = store.attach(pending);
    let log = blocking(log, move |log| log.replace(&snapshot)).await?;
    Ok(async move {
        if let Err(fault) = append(&store, log, &wake, &progress).await {
            tracing::error!(%fault, "the registry can't be saved any more");
            let failure = Arc::from(fault.to_string());
            progress.send_modify(|progress| progress.failure = Some(failure));
        }
    })
}

async fn append(
    store: &Store,
    mut log: Log,
    wake: &Notify,
    progress: &watch::Sender<Progress>,
) -> Result<(), Fault> {
    loop {
        wake.notified().await;
        let saved;
        if log.is_mostly_history() {
            let (snapshot, count) = store.snapshot();
            saved = count;
            log = blocking(log, move |log| log.replace(&snapshot)).await?;
        } else {
            let (bytes, count) = store.take_pending();
            saved = count;
            log = blocking(log, move |log| log.append(&bytes)).await?;
        }
        progress.send_modify(|progress| progress.saved = saved);
    }
}

async fn blocking(
    mut log: Log,
    work: impl FnOnce(&mut Log) -> Result<(), Fault> + Send + 'static,
) -> Result<Log, Fault> {
    let done = spawn_blocking(move || work(&mut log).map(|()| log)).await;
    done.map_err(|gone| Fault::ended(&gone))?
}
