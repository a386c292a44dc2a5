//! JSON objects with their fields in a given order.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

/// A list of pairs, serialized as an object in the list's order.
pub(crate) struct Pairs<K, V>(pub Vec<(K, V)>);

impl<K: Serialize, V: Serialize> Serialize for Pairs<K, V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}
