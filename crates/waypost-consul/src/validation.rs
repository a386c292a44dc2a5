//! Rejects registrations that every Consul agent refuses, before anything is sent. Only metadata has to be
//! checked: [`service_definition`](crate::definition::service_definition) writes everything else in a form
//! that agents accept.

use serde_json::{Map, Value};

/// Consul's limits on metadata (`ValidateServiceMetadata` in its source), in bytes.
const MAX_KEY: usize = 128;
const MAX_VALUE: usize = 512;
const MAX_PAIRS: usize = 64;

/// Checks the metadata of a service definition. The error says what is wrong.
pub(super) fn validate_metadata(metadata: &Map<String, Value>) -> Result<(), String> {
    if metadata.len() > MAX_PAIRS {
        return Err(format!(
            "{} metadata entries, including those for version, zone, scheme, path and named ports: the \
             limit is {MAX_PAIRS}",
            metadata.len()
        ));
    }
    for (key, value) in metadata {
        if !is_key(key) {
            return Err(format!(
                "the metadata key {key:?}: use at most {MAX_KEY} letters, digits, '-' and '_'"
            ));
        }
        if key.starts_with("consul-") {
            return Err(format!(
                "the metadata key {key:?}: names that begin with consul- are reserved"
            ));
        }
        let length = value.as_str().map_or(0, str::len);
        if length > MAX_VALUE {
            return Err(format!(
                "the metadata {key:?} has {length} bytes: the limit is {MAX_VALUE}"
            ));
        }
    }
    Ok(())
}

fn is_key(key: &str) -> bool {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    (1..=MAX_KEY).contains(&key.len()) && key.chars().all(is_allowed)
}
