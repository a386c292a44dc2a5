//! Sends updates to subscribers, and logs missing permissions.

use std::sync::Arc;

use super::state::Updates;
use super::subscriptions::Subscriptions;

/// Publishes to the subscribers of an informer, and ends their subscriptions when it is dropped.
pub(super) struct Publisher {
    subscriptions: Arc<Subscriptions>,
    namespace: Arc<str>,
    /// The missing permission that was logged last.
    degraded: Option<&'static str>,
}

impl Publisher {
    pub(super) fn new(subscriptions: &Arc<Subscriptions>, namespace: &Arc<str>) -> Self {
        Self {
            subscriptions: Arc::clone(subscriptions),
            namespace: Arc::clone(namespace),
            degraded: None,
        }
    }

    pub(super) fn publish(&mut self, updates: Updates) {
        if let Some(reason) = updates.degraded
            && self.degraded.replace(reason) != Some(reason)
        {
            let namespace = &*self.namespace;
            tracing::warn!(namespace, reason, "kubernetes discovery is degraded");
        }
        self.subscriptions.publish(updates);
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.subscriptions.close();
    }
}
