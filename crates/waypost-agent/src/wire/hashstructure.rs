//! The hashes of version 1 of the Go library `hashstructure`, with which Consul makes content hashes.
//!
//! Strings and little-endian integers are hashed with FNV-1. The hash of a list is a chain of the
//! hashes of its items. The pairs of a map and the fields of a struct have no order, so each is
//! hashed with its name, and the hashes are combined by exclusive or.

use serde_json::Value;

/// The hash of a field or of a whole value.
pub(super) type Hash = u64;

/// The hash of 0 and of an absent value.
pub(super) const ABSENT: Hash = fnv1(&[0; 8]);

const fn fnv1(bytes: &[u8]) -> Hash {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut i = 0;
    while i < bytes.len() {
        hash = hash.wrapping_mul(0x0100_0000_01b3) ^ bytes[i] as u64;
        i += 1;
    }
    hash
}

pub(super) fn text(text: &str) -> Hash {
    fnv1(text.as_bytes())
}

pub(super) fn int(number: i64) -> Hash {
    fnv1(&number.to_le_bytes())
}

pub(super) fn bool(value: bool) -> Hash {
    fnv1(&[u8::from(value)])
}

/// Decoded JSON, in which all numbers are floating-point numbers in Go.
pub(super) fn json(value: &Value) -> Hash {
    match value {
        Value::Null => ABSENT,
        Value::Bool(value) => bool(*value),
        Value::Number(number) => fnv1(&number.as_f64().unwrap_or_default().to_le_bytes()),
        Value::String(value) => text(value),
        Value::Array(items) => list(items.iter().map(json)),
        Value::Object(entries) => pairs(
            entries
                .iter()
                .map(|(key, value)| (key.as_str(), json(value))),
        ),
    }
}

fn chain(first: Hash, second: Hash) -> Hash {
    fnv1([first.to_le_bytes(), second.to_le_bytes()].as_flattened())
}

pub(super) fn list(items: impl Iterator<Item = Hash>) -> Hash {
    items.fold(0, chain)
}

pub(super) fn pairs<'a>(pairs: impl Iterator<Item = (&'a str, Hash)>) -> Hash {
    pairs.fold(0, |all, (key, value)| all ^ chain(text(key), value))
}

pub(super) fn structure(name: &str, fields: &[(&str, Hash)]) -> Hash {
    text(name) ^ pairs(fields.iter().copied())
}
