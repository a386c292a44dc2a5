//! An object as it lies in the store: its JSON, written once, and what is asked of it most.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::{Map, Value};

use crate::kinds::Kind;

/// What tells an object from the others of its kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    /// Empty for kinds without namespaces.
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
}

/// An object at one revision. It never changes.
#[derive(Debug)]
pub(crate) struct Object {
    pub key: Key,
    pub uid: String,
    pub revision: u64,
    pub labels: BTreeMap<String, String>,
    /// The uids of those it goes with.
    pub owners: Vec<String>,
    /// Without `kind` and `apiVersion`: items of a list don't have them.
    pub json: Bytes,
}

impl Object {
    /// `value` has its metadata complete but for the revision.
    pub(crate) fn new(mut value: Value, revision: u64) -> Arc<Self> {
        if let Some(map) = value.as_object_mut() {
            map.remove("kind");
            map.remove("apiVersion");
        }
        value["metadata"]["resourceVersion"] = revision.to_string().into();
        let meta = &value["metadata"];
        let text = |name: &str| meta[name].as_str().unwrap_or_default().to_owned();
        let labels = meta["labels"].as_object().into_iter().flatten();
        let owners = meta["ownerReferences"].as_array().into_iter().flatten();
        Arc::new(Self {
            key: Key {
                namespace: text("namespace"),
                name: text("name"),
            },
            uid: text("uid"),
            revision,
            labels: labels
                .map(|(key, value)| (key.clone(), value.as_str().unwrap_or_default().to_owned()))
                .collect(),
            owners: owners
                .filter_map(|owner| owner["uid"].as_str().map(str::to_owned))
                .collect(),
            json: value.to_string().into(),
        })
    }

    /// It as a value, without `kind` and `apiVersion`.
    pub(crate) fn value(&self) -> Value {
        // We wrote it.
        serde_json::from_slice(&self.json).unwrap_or_else(|_| Value::Object(Map::new()))
    }

    /// The whole of it, as it stands alone.
    pub(crate) fn whole(&self, kind: &Kind) -> Vec<u8> {
        let head = format!(
            r#"{{"kind":"{}","apiVersion":"{}","#,
            kind.name,
            kind.api_version()
        );
        let mut whole = Vec::with_capacity(head.len() + self.json.len());
        whole.extend_from_slice(head.as_bytes());
        whole.extend_from_slice(self.json.get(1..).unwrap_or_default());
        whole
    }
}
