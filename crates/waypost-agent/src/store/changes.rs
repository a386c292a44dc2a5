//! The changes of one write, collected while it runs.

use std::time::SystemTime;

use super::case_folding::fold_case;
use super::check_history::{CheckKey, Transition};
use super::journal_record::JournalRecord;
use super::model::{Check, CheckStatus};
use super::watch::Topic;

/// The changes of one write. They share one index. A write that changes nothing takes no index, so
/// that repeating a registration wakes no watcher.
#[derive(Clone, Debug)]
pub(crate) struct Changes {
    index: u64,
    has_index: bool,
    /// The time of day of this write.
    time: SystemTime,
    topics: Vec<Topic>,
    /// Checks that became critical or were removed: sessions that depend on them end.
    failed_checks: Vec<FailedCheck>,
    /// Checks whose status changed.
    transitions: Vec<(CheckKey, Transition)>,
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
    /// Starts a write at `time`, after the one with the index `last`.
    pub(super) fn new(last: u64, persistent: bool, time: SystemTime) -> Self {
        Self {
            index: last,
            has_index: false,
            time,
            topics: Vec::new(),
            failed_checks: Vec::new(),
            transitions: Vec::new(),
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

    /// The time of day of this write.
    pub(crate) fn time(&self) -> SystemTime {
        self.time
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

    /// Records that a check has a new status.
    pub(super) fn status_changed(&mut self, check: &Check) {
        self.add_transition(check, Some(check.status), check.output.clone());
    }

    /// Records that a check was removed.
    pub(super) fn check_removed(&mut self, check: &Check) {
        self.check_failed(&check.node, &check.id);
        self.add_transition(check, None, String::new());
    }

    fn add_transition(&mut self, check: &Check, status: Option<CheckStatus>, output: String) {
        let transition = Transition {
            time: self.time,
            status,
            output,
        };
        let key = CheckKey::new(&check.node, &check.id);
        self.transitions.push((key, transition));
    }

    pub(super) fn take_transitions(&mut self) -> Vec<(CheckKey, Transition)> {
        std::mem::take(&mut self.transitions)
    }

    pub(super) fn has_failed_checks(&self) -> bool {
        !self.failed_checks.is_empty()
    }

    pub(super) fn take_failed_checks(&mut self) -> Vec<FailedCheck> {
        std::mem::take(&mut self.failed_checks)
    }
}
