//! Keeping the registry on disk: `--data-dir`.
//!
//! Every change is appended to one file and synced before it is acknowledged. Changes that come
//! while a sync is under way share the next one, so that many clients together are hardly slower
//! than one. At the start, and whenever the file has grown to several times the state it
//! describes, the state is written to a new file that takes the old one's place.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;

use crate::journal::{Fault, Log, Pending, Progress};
use crate::store::{Kept, Store};

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
