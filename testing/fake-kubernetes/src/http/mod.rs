//! Requests as the API server reads them, and responses as it writes them.

pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod status;
