//! The last status changes of each check.
//!
//! The history of a check outlives the check for a while, so that it also covers the restart of an
//! instance, which deregisters and registers it again.

use std::collections::{HashMap, VecDeque};
use std::time::SystemTime;

use super::case_folding::fold_case;
use super::model::CheckStatus;
use crate::text::truncate;

/// The number of transitions that are kept of each check.
const MAX_TRANSITIONS: usize = 256;

/// The maximum output that is kept of each transition, in bytes. A flapping check needs up to 128 KiB.
const MAX_OUTPUT: usize = 512;

/// The number of removed checks whose history is kept.
const MAX_REMOVED: usize = 256;

/// A change of the status of a check.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Transition {
    pub time: SystemTime,
    /// The new status. `None`: the check was removed.
    pub status: Option<CheckStatus>,
    /// The output at that time, truncated to [`MAX_OUTPUT`] bytes.
    pub output: String,
}

/// The identity of a check: its node and its id, both case-folded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct CheckKey {
    pub node: String,
    pub check: String,
}

/// The transitions of all checks.
#[derive(Debug, Default)]
pub(crate) struct CheckHistory {
    by_check: HashMap<CheckKey, VecDeque<Transition>>,
    /// The removed checks, in the order of their removal.
    removed: VecDeque<CheckKey>,
}

impl CheckHistory {
    /// Adds a transition. Does nothing if the check already has that status.
    pub(super) fn record(&mut self, key: CheckKey, mut transition: Transition) {
        let known = self.by_check.get(&key).and_then(VecDeque::back);
        if known.map(|last| last.status) == Some(transition.status) {
            return;
        }
        if known.is_some_and(|last| last.status.is_none()) {
            self.removed.retain(|removed| *removed != key);
        }
        if transition.status.is_none() {
            self.removed.push_back(key.clone());
        }
        truncate(&mut transition.output, MAX_OUTPUT);
        let transitions = self.by_check.entry(key).or_default();
        if transitions.len() == MAX_TRANSITIONS {
            transitions.pop_front();
        }
        transitions.push_back(transition);
        if self.removed.len() > MAX_REMOVED
            && let Some(oldest) = self.removed.pop_front()
        {
            self.by_check.remove(&oldest);
        }
    }

    /// The transitions of a check, oldest first.
    pub(crate) fn of(&self, node: &str, check: &str) -> impl Iterator<Item = &Transition> {
        let key = CheckKey::new(node, check);
        self.by_check.get(&key).into_iter().flatten()
    }
}

impl CheckKey {
    pub(super) fn new(node: &str, check: &str) -> Self {
        Self {
            node: fold_case(node),
            check: fold_case(check),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn at(second: u64, status: Option<CheckStatus>) -> Transition {
        Transition {
            time: UNIX_EPOCH + Duration::from_secs(second),
            status,
            output: "é".repeat(MAX_OUTPUT),
        }
    }

    #[test]
    fn the_last_transitions_are_kept_and_a_repeated_status_is_not_a_transition() {
        let mut history = CheckHistory::default();
        let both = [Some(CheckStatus::Passing), Some(CheckStatus::Critical)];
        for second in 0..1000 {
            let status = both[second as usize / 2 % 2];
            history.record(CheckKey::new("N", "C"), at(second, status));
        }
        let kept: Vec<_> = history.of("n", "c").collect();
        assert_eq!(kept.len(), MAX_TRANSITIONS);
        assert_eq!(kept[255].time, at(998, None).time);
        assert_eq!(kept[0].time, at(488, None).time);
        assert!(kept.iter().all(|it| it.output.len() == MAX_OUTPUT));
    }

    #[test]
    fn a_check_that_is_registered_again_keeps_its_history_and_the_oldest_removed_checks_are_dropped()
     {
        let mut history = CheckHistory::default();
        for number in 0..=MAX_REMOVED {
            let key = CheckKey::new("n", &number.to_string());
            history.record(key.clone(), at(1, Some(CheckStatus::Passing)));
            history.record(key.clone(), at(2, None));
            if number == 0 {
                history.record(key, at(3, Some(CheckStatus::Passing)));
            }
        }
        assert_eq!(history.of("n", "0").count(), 3);
        assert_eq!(history.of("n", "1").count(), 2);
        let key = CheckKey::new("n", "0");
        history.record(key, at(4, None));
        assert_eq!(history.of("n", "1").count(), 0, "removed first");
        assert_eq!(history.of("n", "0").count(), 4);
    }
}
