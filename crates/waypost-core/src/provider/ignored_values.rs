//! Logs the values of a registry that are ignored, each once.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::sync::{Mutex, PoisonError};

use crate::model::{Invalid, ServiceName};

/// Logs values of a registry that can't be used, once for each instance and value.
///
/// Other programs write to a registry as well, and may use a key that has a meaning in Waypost, such as
/// the metadata `weight`. An invalid value is replaced by the default of its field, and the instance is
/// still used; see [`InstanceBuilder::try_scheme`](crate::InstanceBuilder::try_scheme).
///
/// After 10,000 different values, no more are logged.
#[derive(Debug, Default)]
pub struct IgnoredValues {
    hasher: RandomState,
    /// Digests of the values that have been logged.
    logged: Mutex<HashSet<u64>>,
}

impl IgnoredValues {
    const MAX_LOGGED: usize = 10_000;

    /// Logs that a field of an instance is ignored and has its default.
    pub fn field(&self, service: &ServiceName, id: &str, invalid: &Invalid) {
        if self.is_new(service, id, invalid) {
            tracing::warn!(%service, id, error = %invalid, "ignoring an invalid field, using its default");
        }
    }

    /// Logs that an instance is ignored, because it has no usable address.
    pub fn instance(&self, service: &ServiceName, id: &str, invalid: &Invalid) {
        if self.is_new(service, id, invalid) {
            tracing::warn!(%service, id, error = %invalid, "ignoring an invalid instance");
        }
    }

    fn is_new(&self, service: &ServiceName, id: &str, invalid: &Invalid) -> bool {
        let value = (service, id, invalid.what(), invalid.value());
        let digest = self.hasher.hash_one(value);
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        logged.len() < Self::MAX_LOGGED && logged.insert(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_logged_once_per_instance_and_the_memory_is_bounded() {
        let ignored = IgnoredValues::default();
        let web = ServiceName::new("web").unwrap();
        let weight = |value: &str| Invalid::new("weight", value, "use a number");
        assert!(ignored.is_new(&web, "a", &weight("1.0")));
        assert!(!ignored.is_new(&web, "a", &weight("1.0")));
        assert!(ignored.is_new(&web, "a", &weight("heavy")));
        assert!(ignored.is_new(&web, "b", &weight("1.0")));
        for number in 0..2 * IgnoredValues::MAX_LOGGED {
            ignored.is_new(&web, "c", &weight(&number.to_string()));
        }
        let remembered = ignored.logged.lock().unwrap().len();
        assert_eq!(remembered, IgnoredValues::MAX_LOGGED);
    }
}
