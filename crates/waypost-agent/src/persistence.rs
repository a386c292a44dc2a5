//! Persistence of the registry in a data directory.
//!
//! Every change is appended to one file and synced before it is acknowledged. Changes that arrive
//! during a sync share the next one, so that many concurrent clients are hardly slower than one. At
//! startup, and whenever the file has grown to several times the size of the state, the state is
//! written to a new file that replaces the old one.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;

use crate::journal::{JournalBuffer, JournalError, JournalFile, WriteProgress};
use crate::store::{RestoredState, Store};

/// Opens the journal in a directory, which is created if needed, and reads the state.
pub(crate) async fn open(directory: &Path) -> Result<(JournalFile, RestoredState), JournalError> {
    let directory = directory.to_owned();
    let opened = spawn_blocking(move || JournalFile::open(&directory)).await;
    let (file, records) = opened.map_err(|error| JournalError::task_failed(&error))??;
    let mut state = RestoredState::default();
    for record in records {
        state.apply(record);
    }
    Ok((file, state))
}

/// Writes the current state to a new file and starts journaling. The returned future appends all
/// further changes and never ends.
pub(crate) async fn start(
    store: Arc<Store>,
    file: JournalFile,
) -> Result<impl Future<Output = ()> + use<>, JournalError> {
    let buffer = JournalBuffer::new();
    let (wake, progress) = (Arc::clone(&buffer.wake), buffer.progress.clone());
    let snapshot = store.start_journal(buffer);
    let file = blocking(file, move |file| file.rewrite(&snapshot)).await?;
    Ok(async move {
        if let Err(error) = write_changes(&store, file, &wake, &progress).await {
            tracing::error!(%error, "failed to write the journal, no change is persisted any more");
            let error = Arc::from(error.to_string());
            progress.send_modify(|progress| progress.error = Some(error));
        }
    })
}

async fn write_changes(
    store: &Store,
    mut file: JournalFile,
    wake: &Notify,
    progress: &watch::Sender<WriteProgress>,
) -> Result<(), JournalError> {
    loop {
        wake.notified().await;
        let written;
        if file.needs_compaction() {
            let (snapshot, count) = store.take_snapshot();
            written = count;
            file = blocking(file, move |file| file.rewrite(&snapshot)).await?;
        } else {
            let (bytes, count) = store.take_journal();
            written = count;
            file = blocking(file, move |file| file.append(&bytes)).await?;
        }
        progress.send_modify(|progress| progress.written = written);
    }
}

async fn blocking(
    mut file: JournalFile,
    work: impl FnOnce(&mut JournalFile) -> Result<(), JournalError> + Send + 'static,
) -> Result<JournalFile, JournalError> {
    let done = spawn_blocking(move || work(&mut file).map(|()| file)).await;
    done.map_err(|error| JournalError::task_failed(&error))?
}
