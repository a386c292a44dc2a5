//! Consul's limits on the metadata of nodes and instances.

use std::collections::BTreeMap;

/// In bytes, although Consul's error messages say characters.
const MAX_KEY_LENGTH: usize = 128;
const MAX_VALUE_LENGTH: usize = 512;
const MAX_PAIRS: usize = 64;

/// Checks metadata. The error is Consul's.
pub(crate) fn validate(meta: &BTreeMap<String, String>) -> Result<(), String> {
    if meta.len() > MAX_PAIRS {
        return Err(format!(
            "Node metadata cannot contain more than {MAX_PAIRS} key/value pairs"
        ));
    }
    for (key, value) in meta {
        validate_pair(key, value).map_err(|error| {
            format!("Couldn't load metadata pair ('{key}', '{value}'): {error}")
        })?;
    }
    Ok(())
}

fn validate_pair(key: &str, value: &str) -> Result<(), String> {
    let is_valid = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    if key.is_empty() {
        Err("Key cannot be blank".to_owned())
    } else if !key.chars().all(is_valid) {
        Err("Key contains invalid characters".to_owned())
    } else if key.len() > MAX_KEY_LENGTH {
        Err(format!(
            "Key is too long (limit: {MAX_KEY_LENGTH} characters)"
        ))
    } else if key.starts_with("consul-") {
        Err("Key prefix 'consul-' is reserved for internal use".to_owned())
    } else if value.len() > MAX_VALUE_LENGTH {
        Err(format!(
            "Value is too long (limit: {MAX_VALUE_LENGTH} characters)"
        ))
    } else {
        Ok(())
    }
}
