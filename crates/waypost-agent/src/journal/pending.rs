use std::fmt::Debug;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::{Notify, watch};

use super::log;

/// What has changed but isn't on disk yet.
#[derive(Debug)]
pub(crate) struct Pending {
    bytes: Vec<u8>,
    /// How many records there have been.
    count: u64,
    /// Wakes who writes it.
    pub wake: Arc<Notify>,
    pub progress: watch::Sender<Progress>,
}

/// How far the disk is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    pub saved: u64,
    /// Why nothing is saved any more.
    pub failure: Option<Arc<str>>,
}

impl Pending {
    pub(crate) fn new() -> Self {
        Self {
            bytes: Vec::new(),
            count: 0,
            wake: Arc::default(),
            progress: watch::Sender::default(),
        }
    }

    /// Adds records to those that will be saved next.
    pub(crate) fn push(&mut self, records: &[impl Serialize + Debug]) {
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
