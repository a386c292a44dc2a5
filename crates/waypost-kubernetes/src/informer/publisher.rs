//! Sends updates to subscribers, and logs missing permissions.

use std::sync::Arc;

use super::state::Updates;
use super::subscriptions::Subscriptions;
use crate::namespaces::Namespaces;

/// Publishes to the subscribers of an informer, and ends their subscriptions when it is dropped.
pub(super) struct Publisher {
    subscriptions: Arc<Subscriptions>,
    namespaces: Namespaces,
    /// The missing permission that was logged last.
    degraded: Option<&'static str>,
}

impl Publisher {
    pub(super) fn new(subscriptions: &Arc<Subscriptions>, namespaces: &Namespaces) -> Self {
        Self {
            subscriptions: Arc::clone(subscriptions),
            namespaces: namespaces.clone(),
            degraded: None,
        }
    }

    pub(super) fn publish(&mut self, updates: Updates) {
        if let Some(reason) = updates.degraded
            && self.degraded.replace(reason) != Some(reason)
        {
            let namespaces = &self.namespaces;
            tracing::warn!(reason, "kubernetes discovery in {namespaces} is degraded");
        }
        self.subscriptions.publish(updates);
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.subscriptions.close();
    }
}
