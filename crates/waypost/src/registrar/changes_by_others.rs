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
