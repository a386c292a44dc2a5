//! The state that all handlers share.

use std::sync::Arc;

use crate::catalog::Catalog;

/// The largest request body, in bytes.
pub(super) const MAX_BODY: usize = 1024 * 1024;

/// The state of the router.
#[derive(Clone)]
pub(super) struct ApiState {
    /// The instance ID.
    pub(super) instance: Arc<str>,
    pub(super) catalog: Arc<Catalog>,
}
