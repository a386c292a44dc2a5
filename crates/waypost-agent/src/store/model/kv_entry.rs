//! A key with its value.

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A key with its value.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct KvEntry {
    /// How often a session has acquired the lock.
    pub lock_index: u64,
    pub key: String,
    pub flags: u64,
    #[serde(serialize_with = "to_base64", deserialize_with = "from_base64")]
    pub value: Bytes,
    /// The session that holds the lock, or an empty string.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub session: String,
    pub create_index: u64,
    pub modify_index: u64,
}

/// As in Go, an empty value is `null`.
fn to_base64<S: Serializer>(bytes: &Bytes, serializer: S) -> Result<S::Ok, S::Error> {
    if bytes.is_empty() {
        return serializer.serialize_none();
    }
    serializer.serialize_str(&data_encoding::BASE64.encode(bytes))
}

fn from_base64<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?.unwrap_or_default();
    let bytes = data_encoding::BASE64.decode(text.as_bytes());
    bytes.map(Bytes::from).map_err(serde::de::Error::custom)
}
