//! The records that are still to be written.

use std::fmt::Debug;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::{Notify, watch};

use super::file;

/// Encoded records that aren't on disk yet.
#[derive(Debug)]
pub(crate) struct JournalBuffer {
    bytes: Vec<u8>,
    /// The number of records pushed so far.
    count: u64,
    /// Notified when there is something to write.
    pub wake: Arc<Notify>,
    /// Updated by the task that writes the file.
    pub progress: watch::Sender<WriteProgress>,
}

/// How much of the journal is on disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct WriteProgress {
    /// The number of records on disk.
    pub written: u64,
    /// Why nothing is written any more.
    pub error: Option<Arc<str>>,
}

impl JournalBuffer {
    pub(crate) fn new() -> Self {
        Self {
            bytes: Vec::new(),
            count: 0,
            wake: Arc::default(),
            progress: watch::Sender::default(),
        }
    }

    /// Adds records to the next write.
    pub(crate) fn push(&mut self, records: &[impl Serialize + Debug]) {
        if records.is_empty() {
            return;
        }
        for record in records {
            self.count += 1;
            if let Err(error) = file::append_frame(record, &mut self.bytes) {
                let error = format!("failed to serialize {record:?}: {error}");
                self.progress
                    .send_modify(|progress| progress.error = Some(error.into()));
            }
        }
        self.wake.notify_one();
    }

    /// Takes the bytes to write, and the number of records so far.
    pub(crate) fn take(&mut self) -> (Vec<u8>, u64) {
        (std::mem::take(&mut self.bytes), self.count)
    }

    /// Resolves when every record pushed so far is on disk. The error is why it can't be written.
    pub(crate) fn written(&self) -> impl Future<Output = Result<(), String>> + use<> {
        let (count, mut progress) = (self.count, self.progress.subscribe());
        async move {
            let is_done =
                |progress: &WriteProgress| progress.error.is_some() || progress.written >= count;
            let done = progress.wait_for(is_done).await;
            match done.map(|progress| progress.error.clone()) {
                Ok(None) => Ok(()),
                Ok(Some(error)) => Err(error.to_string()),
                Err(_) => Err("the registry is shutting down".to_owned()),
            }
        }
    }
}
