//! Authentication and authorization of requests.

pub(crate) mod credentials;
pub(crate) mod rbac;
