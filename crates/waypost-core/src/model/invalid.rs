//! The error for a value that was refused.

use crate::secrets::{mask_secrets, mask_secrets_in_url};

/// Why a value was refused, with the value and a description of valid values.
///
/// ```
/// # use waypost_core::Invalid;
/// let error = Invalid::new("datacenter", "dc 1", "use letters, digits and '-'");
/// assert_eq!(
///     error.to_string(),
///     "datacenter \"dc 1\" is not valid: use letters, digits and '-'"
/// );
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not valid: {why}")]
pub struct Invalid {
    what: &'static str,
    value: String,
    why: String,
}

impl Invalid {
    /// A refused value: what kind of value it is (such as `"service name"`), the value itself
    /// (`"(hidden)"` for a secret), and what is wrong with it or would be valid instead. Secrets in
    /// URLs are masked; see [`mask_secrets`].
    pub fn new(what: &'static str, value: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            what,
            value: mask_secrets_in_url(&value.into()),
            why: mask_secrets(&why.into()).into_owned(),
        }
    }

    /// The kind of value, such as `"service name"`.
    pub fn what(&self) -> &str {
        self.what
    }

    /// The value that was refused, with secrets masked.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The problem, or a description of valid values.
    pub fn why(&self) -> &str {
        &self.why
    }
}
