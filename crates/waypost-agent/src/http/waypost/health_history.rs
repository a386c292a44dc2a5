//! The health history of an instance. Its health is the worst status of its checks.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::store::{CheckHistory, CheckStatus, Instance};

/// The time that the history covers.
pub(super) const WINDOW: Duration = Duration::from_secs(15 * 60);

/// The number of changes that are sent for each instance.
const MAX_CHANGES: usize = 60;

/// When an instance got a status. `None`: it was removed.
type Change = (SystemTime, Option<CheckStatus>);

/// The changes of the status of an instance within [`WINDOW`], oldest first. The first one is the
/// status at the beginning of the window, if that is known.
pub(super) fn changes(history: &CheckHistory, instance: &Instance, now: SystemTime) -> Vec<Change> {
    let mut all: Vec<_> = instance
        .checks
        .iter()
        .enumerate()
        .flat_map(|(number, check)| {
            let transitions = history.of(&check.node, &check.id);
            transitions.map(move |transition| (transition.time, number, transition.status))
        })
        .collect();
    all.sort_by_key(|(time, ..)| *time);
    let mut statuses: BTreeMap<usize, CheckStatus> = BTreeMap::new();
    let mut changes: Vec<Change> = Vec::new();
    for (time, number, status) in all {
        match status {
            Some(status) => statuses.insert(number, status),
            None => statuses.remove(&number),
        };
        // Every instance has its own checks, so one without any was deregistered.
        let is_present =
            instance.checks.iter().enumerate().any(|(number, check)| {
                !check.service_id.is_empty() && statuses.contains_key(&number)
            });
        let worst = statuses.values().max().copied().filter(|_| is_present);
        match changes.last_mut() {
            Some(last) if last.1 == worst => {}
            // The node's checks may be older than the instance.
            None if worst.is_none() => {}
            // Simultaneous changes of several checks count as one change.
            Some(last) if last.0 == time => last.1 = worst,
            _ => changes.push((time, worst)),
        }
    }
    let start = now.checked_sub(WINDOW).unwrap_or(UNIX_EPOCH);
    let before = changes.iter().filter(|(time, _)| *time < start).count();
    let mut recent = changes.split_off(before.saturating_sub(1));
    recent.drain(..recent.len().saturating_sub(MAX_CHANGES));
    recent
}
