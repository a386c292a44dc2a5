//! A stored object: its JSON, serialized once, and the fields that the server reads most.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::kind::Kind;

/// The namespace and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// Empty for objects that aren't in a namespace.
    pub namespace: String,
    pub name: String,
}

impl Key {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    /// Whether the object is in this namespace. An empty namespace stands for all, as in requests.
    pub(crate) fn is_in(&self, namespace: &str) -> bool {
        namespace.is_empty() || self.namespace == namespace
    }

    /// The key that an object's metadata names.
    pub(crate) fn of(object: &Value) -> Self {
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        Self::new(text("namespace"), text("name"))
    }
}

/// An object at one revision. It never changes.
#[derive(Debug)]
pub(crate) struct Object {
    pub key: Key,
    pub revision: u64,
    pub labels: BTreeMap<String, String>,
    /// Without `kind` and `apiVersion`, which the items of a list do not have.
    pub json: Bytes,
}

impl Object {
    /// `value` is complete except for its revision.
    pub(crate) fn new(mut value: Value, revision: u64) -> Arc<Self> {
        if let Some(map) = value.as_object_mut() {
            map.remove("kind");
            map.remove("apiVersion");
        }
        value["metadata"]["resourceVersion"] = revision.to_string().into();
        let labels = value["metadata"]["labels"]
            .as_object()
            .into_iter()
            .flatten();
        Arc::new(Self {
            key: Key::of(&value),
            revision,
            labels: labels
                .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
                .collect(),
            json: value.to_string().into(),
        })
    }

    /// The object as JSON, without `kind` and `apiVersion`.
    pub(crate) fn value(&self) -> Value {
        self.parse().unwrap_or_default()
    }

    /// The object as its published type; None if it cannot be read as that.
    pub(crate) fn parse<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.json).ok()
    }

    /// The object as JSON, with `kind` and `apiVersion`.
    pub(crate) fn with_kind(&self, kind: Kind) -> Vec<u8> {
        let (name, api_version) = (kind.name(), kind.api_version());
        let mut json = format!(r#"{{"kind":"{name}","apiVersion":"{api_version}","#).into_bytes();
        json.extend_from_slice(self.json.get(1..).unwrap_or_default());
        json
    }
}
