//! Persistence of the registry in a data directory.
//!
//! Every change is appended to one file and synced before it is acknowledged. Changes that arrive
//! during a sync share the next one, so that many concurrent clients are barely slower than one. At
//! startup, and whenever the file has grown to several times the size of the state, the state is
//! written to a new file that replaces the old one.
//!
//! Changes that can't be written, because the disk is full, are undone: the rows that they touched are
//! reset to their values on disk. Later changes are attempted again. Only results of checks are kept.

use std::path::Path;
use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio::task::spawn_blocking;

use crate::app::App;
use crate::journal::{JournalBuffer, JournalError, JournalFile, WriteProgress};
use crate::store::RestoredState;

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
    app: Arc<App>,
    file: JournalFile,
) -> Result<impl Future<Output = ()> + use<>, JournalError> {
    let buffer = JournalBuffer::new();
    let (wake, progress) = (Arc::clone(&buffer.wake), buffer.progress.clone());
    let snapshot = app.store.start_journal(buffer);
    let (file, written) = blocking(file, move |file| file.rewrite(&snapshot)).await?;
    written?;
    Ok(async move {
        if let Err(error) = write_changes(&app, file, &wake, &progress).await {
            tracing::error!(%error, "failed to write the journal, no change is persisted any more");
            let error = Arc::from(error.to_string());
            progress.send_modify(|progress| progress.error = Some(error));
        }
    })
}

async fn write_changes(
    app: &App,
    mut file: JournalFile,
    wake: &Notify,
    progress: &watch::Sender<WriteProgress>,
) -> Result<(), JournalError> {
    let mut is_failing = false;
    loop {
        wake.notified().await;
        let (frames, count) = app.store.take_journal();
        let frames = Arc::new(frames);
        let result;
        (file, result) = write(app, file, &frames).await?;
        match result {
            Ok(()) => {
                if std::mem::take(&mut is_failing) {
                    tracing::info!("changes are persisted again");
                }
                progress.send_modify(|progress| progress.written = count);
            }
            Err(error) => {
                if !std::mem::replace(&mut is_failing, true) {
                    tracing::error!(%error, "failed to write the journal, changes are refused");
                }
                let records;
                (file, records) = blocking(file, |file| file.read_again()).await?;
                let mut on_disk = RestoredState::default();
                for record in records? {
                    on_disk.apply(record);
                }
                let unwritten = JournalBuffer::decode(&frames);
                let count = app.agent_services.roll_back(unwritten, &on_disk);
                let error = Arc::from(error.to_string());
                progress.send_modify(|progress| progress.undo(count, error));
            }
        }
    }
}

/// Writes changes. Compacts the file if it has grown, or if it is large and the disk is full.
async fn write(
    app: &App,
    file: JournalFile,
    frames: &Arc<Vec<u8>>,
) -> Result<(JournalFile, Result<(), JournalError>), JournalError> {
    if app.faults.has_full_disk() {
        return Ok((file, Err(JournalError::full_disk())));
    }
    let frames = Arc::clone(frames);
    if !file.needs_compaction() {
        let (file, appended) = blocking(file, move |file| file.append(&frames)).await?;
        if appended.is_ok() || !file.can_shrink() {
            return Ok((file, appended));
        }
        let snapshot = app.store.snapshot();
        return blocking(file, move |file| file.rewrite(&snapshot).or(appended)).await;
    }
    let snapshot = app.store.snapshot();
    blocking(file, move |file| {
        file.rewrite(&snapshot).or_else(|error| {
            tracing::warn!(%error, "failed to compact the journal");
            file.append(&frames)
        })
    })
    .await
}

/// Does blocking work with the file, and returns the file and the result of the work.
async fn blocking<T: Send + 'static>(
    mut file: JournalFile,
    work: impl FnOnce(&mut JournalFile) -> T + Send + 'static,
) -> Result<(JournalFile, T), JournalError> {
    let done = spawn_blocking(move || {
        let result = work(&mut file);
        (file, result)
    });
    done.await
        .map_err(|error| JournalError::task_failed(&error))
}
