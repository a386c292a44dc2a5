//! The body of `/v1/internal/acl/authorize`, which is a list of these.

use serde::Deserialize;

/// A request to check whether an access is allowed.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(crate) struct Authorization {
    pub resource: String,
    pub segment: String,
    pub access: String,
}
