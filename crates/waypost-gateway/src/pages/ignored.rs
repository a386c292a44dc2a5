//! The names in the registry's list that aren't valid names of services.

use serde_json::{Value, json};
use waypost::Invalid;

/// The maximum number of names that are described.
const MAX_NAMES: usize = 100;

/// How many there are, and the first of them with the reasons.
pub(super) fn describe_ignored(names: &[Invalid]) -> Value {
    let described = names
        .iter()
        .take(MAX_NAMES)
        .map(|invalid| json!({"name": invalid.value(), "why": invalid.why()}));
    json!({"count": names.len(), "names": described.collect::<Vec<_>>()})
}
