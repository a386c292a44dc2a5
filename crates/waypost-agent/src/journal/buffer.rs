//! The records that have not been written yet.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;
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
    /// The number of records that are on disk or were undone.
    pub written: u64,
    /// The records that were undone, newest last. Older entries, which no request waits for, are dropped.
    pub undone: VecDeque<Undone>,
    /// Why no further changes are written.
    pub error: Option<Arc<str>>,
}

/// The maximum number of entries of [`WriteProgress::undone`].
const MAX_UNDONE: usize = 1024;

/// Records that couldn't be written.
#[derive(Clone, Debug)]
pub(crate) struct Undone {
    /// Counted from the first record of the process.
    pub records: RangeInclusive<u64>,
    pub error: Arc<str>,
}

impl WriteProgress {
    /// Marks all unwritten records up to `count` as undone.
    pub(crate) fn undo(&mut self, count: u64, error: Arc<str>) {
        self.undone.push_back(Undone {
            records: self.written + 1..=count,
            error,
        });
        if self.undone.len() > MAX_UNDONE {
            self.undone.pop_front();
        }
        self.written = count;
    }

    /// Why a record wasn't written.
    fn error_of(&self, record: u64) -> Option<Arc<str>> {
        let undone = self.undone.iter().rev();
        let undone = undone.filter(|undone| undone.records.contains(&record));
        let error = undone.map(|undone| Arc::clone(&undone.error)).next();
        error.or_else(|| self.error.clone())
    }
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

    /// Adds records to the next write without causing one.
    pub(crate) fn push_for_later(&mut self, records: &[impl Serialize + Debug]) {
        for record in records {
            self.count += 1;
            // Can't fail, because they were serialized before.
            let _ = file::append_frame(record, &mut self.bytes);
        }
    }

    /// The records in bytes from [`take`](Self::take).
    pub(crate) fn decode<R: DeserializeOwned>(bytes: &[u8]) -> Vec<R> {
        file::read_frames(bytes)
    }

    /// Takes the bytes to write, and the number of records so far.
    pub(crate) fn take(&mut self) -> (Vec<u8>, u64) {
        (std::mem::take(&mut self.bytes), self.count)
    }

    /// Waits until every record pushed so far is on disk. The error says why one can't be written.
    pub(crate) fn written(&self) -> impl Future<Output = Result<(), String>> + use<> {
        let (count, mut progress) = (self.count, self.progress.subscribe());
        async move {
            let is_done =
                |progress: &WriteProgress| progress.error.is_some() || progress.written >= count;
            let done = progress.wait_for(is_done).await;
            match done.map(|progress| progress.error_of(count)) {
                Ok(None) => Ok(()),
                Ok(Some(error)) => Err(error.to_string()),
                Err(_) => Err("the registry is shutting down".to_owned()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_request_waits_until_its_records_are_written_or_undone() {
        let mut buffer = JournalBuffer::new();
        assert_eq!(
            buffer.written().now_or_never(),
            Some(Ok(())),
            "nothing to write"
        );
        buffer.push(&["a", "b"]);
        let first = buffer.written();
        buffer.push(&["c"]);
        let second = buffer.written();
        let (bytes, count) = buffer.take();
        assert_eq!(JournalBuffer::decode::<String>(&bytes), ["a", "b", "c"]);
        assert_eq!(count, 3);
        assert_eq!(buffer.take(), (vec![], 3));
        buffer.progress.send_modify(|progress| progress.written = 2);
        assert_eq!(first.now_or_never(), Some(Ok(())));
        let third = buffer.written();
        assert_eq!(third.now_or_never(), None);
        buffer
            .progress
            .send_modify(|progress| progress.undo(3, "full".into()));
        assert_eq!(second.now_or_never(), Some(Err("full".to_owned())));
        // Later records are attempted again.
        buffer.push_for_later(&["c"]);
        assert_eq!(buffer.take().1, 4);
        buffer.push(&["d"]);
        let fourth = buffer.written();
        buffer.progress.send_modify(|progress| progress.written = 5);
        assert_eq!(fourth.now_or_never(), Some(Ok(())));
    }

    #[test]
    fn only_the_last_undone_records_are_remembered() {
        let mut progress = WriteProgress::default();
        for count in 1..=MAX_UNDONE as u64 + 1 {
            progress.undo(2 * count, "full".into());
        }
        assert_eq!(progress.undone.len(), MAX_UNDONE);
        for (record, is_known) in [
            (1, false),
            (2, false),
            (3, true),
            (4, true),
            (2050, true),
            (2051, false),
        ] {
            assert_eq!(progress.error_of(record).is_some(), is_known, "{record}");
        }
    }
}
