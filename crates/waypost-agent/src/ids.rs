//! The ids of nodes, sessions and events, which are UUIDs.

use uuid::Builder;

/// A random UUID (version 4).
pub(crate) fn random(random: &mut fastrand::Rng) -> String {
    let bytes = random.u128(..).to_be_bytes();
    Builder::from_random_bytes(bytes).into_uuid().to_string()
}

/// Checks the id of a node, which may be empty. The error is Consul's.
pub(crate) fn check_node_id(text: &str) -> Result<(), String> {
    const LENGTH: usize = 36;
    const HYPHENS: [usize; 4] = [8, 13, 18, 23];
    if text.is_empty() {
        Ok(())
    } else if text.len() != LENGTH {
        Err("uuid string is wrong length".to_owned())
    } else if HYPHENS.iter().any(|at| text.as_bytes()[*at] != b'-') {
        Err("uuid is improperly formatted".to_owned())
    } else {
        check_digits(text)
    }
}

/// Checks the id of a session. The error is Consul's, which checks session ids differently from node
/// ids.
pub(crate) fn check_session_id(text: &str) -> Result<(), String> {
    let hyphens = text.matches('-').count();
    if text.len() != 36 {
        Err("UUID must be 36 characters".to_owned())
    } else if hyphens > 4 {
        Err(format!(
            "UUID should have maximum of 4 \"-\"; got {hyphens}"
        ))
    } else if !hyphens.is_multiple_of(2) {
        Err("Input (without hyphens) must be even length".to_owned())
    } else {
        check_digits(text).map_err(|error| format!("Invalid UUID: {error}"))
    }
}

fn check_digits(text: &str) -> Result<(), String> {
    match text.chars().find(|c| *c != '-' && !c.is_ascii_hexdigit()) {
        Some(wrong) => Err(format!(
            "encoding/hex: invalid byte: U+{:04X} '{wrong}'",
            u32::from(wrong)
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_are_uuids_of_version_4() {
        let id = random(&mut fastrand::Rng::with_seed(7));
        assert_eq!(check_node_id(&id), Ok(()));
        assert_eq!(&id[14..15], "4");
        assert!(matches!(&id[19..20], "8" | "9" | "a" | "b"), "{id}");
    }
}
