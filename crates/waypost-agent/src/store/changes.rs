//! The changes of one write, collected while it runs.

use super::case_folding::fold_case;
use super::journal_record::JournalRecord;
use super::watch::Topic;

/// The changes of one write. They share one index. A write that changes nothing takes no index, so
/// that repeating a registration wakes no watcher.
#[derive(Clone, Debug)]
pub(crate) struct Changes {
    index: u64,
    has_index: bool,
    topics: Vec<Topic>,
    /// Checks that became critical or were removed: sessions that depend on them end.
    failed_checks: Vec<FailedCheck>,
    /// `None` if nothing is persisted.
    records: Option<Vec<JournalRecord>>,
}

/// A check that became critical or was removed, by case-folded names.
#[derive(Clone, Debug)]
pub(super) struct FailedCheck {
    pub node: String,
    /// `None` stands for every check of a node that was removed.
    pub check: Option<String>,
}

impl Changes {
    /// Starts a write after the one with the index `last`.
    pub(super) fn new(last: u64, persistent: bool) -> Self {
        Self {
            index: last,
            has_index: false,
            topics: Vec::new(),
            failed_checks: Vec::new(),
            records: persistent.then(Vec::new),
        }
    }

    /// The index of this write.
    pub(super) fn index(&mut self) -> u64 {
        if !self.has_index {
            self.has_index = true;
            self.index += 1;
        }
        self.index
    }

    /// The index of this write, or of the last one before it if nothing has changed.
    pub(super) fn last_index(&self) -> u64 {
        self.index
    }

    /// Marks a topic as changed.
    pub(super) fn touch(&mut self, topic: Topic) {
        // A registration touches the same few topics repeatedly.
        if !self.topics.iter().rev().take(4).any(|last| *last == topic) {
            self.topics.push(topic);
        }
    }

    pub(super) fn topics(&self) -> &[Topic] {
        &self.topics
    }

    /// Adds a record to the journal, if there is one.
    pub(super) fn record(&mut self, record: impl FnOnce() -> JournalRecord) {
        if let Some(records) = &mut self.records {
            records.push(record());
        }
    }

    /// The records of this write for the journal.
    pub(super) fn take_records(&mut self) -> Vec<JournalRecord> {
        let mut records = self.records.take().unwrap_or_default();
        if self.has_index {
            records.push(JournalRecord::Index(self.index));
        }
        records
    }

    pub(super) fn node_removed(&mut self, node_key: &str) {
        self.failed_checks.push(FailedCheck {
            node: node_key.to_owned(),
            check: None,
        });
    }

    pub(super) fn check_failed(&mut self, node: &str, check: &str) {
        self.failed_checks.push(FailedCheck {
            node: fold_case(node),
            check: Some(fold_case(check)),
        });
    }

    pub(super) fn has_failed_checks(&self) -> bool {
        !self.failed_checks.is_empty()
    }

    pub(super) fn take_failed_checks(&mut self) -> Vec<FailedCheck> {
        std::mem::take(&mut self.failed_checks)
    }
}
