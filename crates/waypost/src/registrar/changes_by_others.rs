//! Detects and logs changes of the registration by other processes.

use std::sync::Arc;

use waypost_core::InstanceId;

/// Tracks changes of the registration by other processes.
#[derive(Debug, Default)]
pub(super) struct ChangesByOthers {
    /// The number of heartbeats since the last change; `None` if there was no change.
    quiet: Option<u32>,
    /// Whether it was logged that another process registers the same id.
    conflict_logged: bool,
    last_difference: Option<Arc<str>>,
}

impl ChangesByOthers {
    /// Two changes that are fewer heartbeats apart than this are a conflict: another process keeps registering
    /// the same id. A person or a tool would change it less often.
    const CONFLICT: u32 = 2;

    /// The number of heartbeats without a change after which a conflict has ended.
    const RESOLVED: u32 = 10;

    /// Handles a change by another process. Logs each kind of change once.
    pub(super) fn changed(&mut self, id: &InstanceId, provider: &str, difference: &Arc<str>) {
        let is_conflict = self.quiet.is_some_and(|quiet| quiet < Self::CONFLICT);
        self.quiet = Some(0);
        if is_conflict && !self.conflict_logged {
            self.conflict_logged = true;
            tracing::error!(
                %id,
                provider,
                %difference,
                "another process registers the same id, and each replaces the registration of the \
                 other; give each instance its own id"
            );
        } else if !is_conflict && self.last_difference.as_ref() != Some(difference) {
            tracing::warn!(
                %id,
                provider,
                %difference,
                "the registration was changed in the registry, registering again"
            );
        }
        self.last_difference = Some(Arc::clone(difference));
    }

    /// Whether another process keeps registering the same id, and that has been logged.
    pub(super) fn is_conflict(&self) -> bool {
        self.conflict_logged
    }

    /// Handles a heartbeat that found the registration unchanged.
    pub(super) fn unchanged(&mut self) {
        let Some(quiet) = &mut self.quiet else { return };
        *quiet += 1;
        if *quiet >= Self::RESOLVED {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use waypost_testkit::Logs;

    use super::*;

    #[test]
    fn changes_in_quick_succession_are_a_conflict_and_others_are_logged_once_each() {
        let (logs, _guard) = Logs::take();
        let id = InstanceId::new("auth-1");
        let [port, tags]: [Arc<str>; 2] = ["the port".into(), "the tags".into()];
        let mut changes = ChangesByOthers::default();
        let logged = || {
            let conflicts = logs.lines(&["ERROR", "registers the same id"]);
            let others = logs.lines(&["WARN", "registering again"]);
            (conflicts.len(), others.len())
        };
        let quiet = |changes: &mut ChangesByOthers, heartbeats| {
            (0..heartbeats).for_each(|_| changes.unchanged());
        };
        quiet(&mut changes, 20);
        for (heartbeats, difference, expected) in [
            (0, &port, (0, 1)),
            (2, &port, (0, 1)),
            (2, &tags, (0, 2)),
            (9, &tags, (0, 2)),
            // As if it had never happened.
            (10, &tags, (0, 3)),
        ] {
            quiet(&mut changes, heartbeats);
            changes.changed(&id, "consul", difference);
            assert_eq!(logged(), expected, "{difference} after {heartbeats}");
            assert!(!changes.is_conflict());
        }
        for heartbeats in [1, 0, 1] {
            quiet(&mut changes, heartbeats);
            changes.changed(&id, "consul", &port);
            assert_eq!(logged(), (1, 3), "the conflict is logged once");
            assert!(changes.is_conflict());
        }
        quiet(&mut changes, 9);
        assert!(changes.is_conflict());
        quiet(&mut changes, 1);
        assert!(!changes.is_conflict());
    }
}
