//! Who sends a request, and what that user may do.

pub(crate) mod credentials;
pub(crate) mod rbac;
