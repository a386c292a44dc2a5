//! What is in the cluster.

use serde_json::Value;

use super::ApiServer;
use crate::api;
use crate::kinds::{KINDS, Kind};
use crate::store::Key;

impl ApiServer {
    /// Creates an object or replaces the one of its name, as an administrator would; its namespace
    /// is created if need be. Gives its revision. (Faults of etcd don't stop this.)
    ///
    /// # Panics
    /// If it is no object that the server knows or takes, with the server's own words.
    pub fn put(&self, manifest: &Value) -> u64 {
        self.try_put(manifest)
            .unwrap_or_else(|reason| panic!("{reason}\n{manifest:#}"))
    }

    /// The same without panics: an error is what the server says.
    ///
    /// # Errors
    /// If it is no object that the server knows or takes.
    pub fn try_put(&self, manifest: &Value) -> Result<u64, String> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let name = text(&manifest["kind"]);
        let kind = Kind::of(&text(&manifest["apiVersion"]), &name)
            .ok_or_else(|| format!("no such kind: {} {name}", manifest["apiVersion"]))?;
        let mut object = manifest.clone();
        let mut namespace = String::new();
        if kind.is_namespaced {
            namespace = text(&manifest["metadata"]["namespace"]);
            if namespace.is_empty() {
                namespace.clone_from(&self.namespace);
            }
            object["metadata"]["namespace"] = namespace.as_str().into();
            self.create_namespace(&namespace)?;
        }
        let key = Key::new(&namespace, &text(&manifest["metadata"]["name"]));
        let exists = self.app.store.read().get(kind, &key).is_some();
        let stored = if exists {
            api::update_object(&self.app, kind, object)
        } else {
            api::create_object(&self.app, kind, object)
        };
        stored.map(|it| it.revision).map_err(|it| it.message)
    }

    /// Deletes an object, and what belongs to it; false if there is none. The namespace is empty
    /// for kinds that have none. A namespace takes its time
    /// ([`Builder::namespace_deletion`](super::Builder::namespace_deletion)).
    pub fn delete(&self, plural: &str, namespace: &str, name: &str) -> bool {
        let kind = KINDS.iter().find(|it| it.plural == plural);
        kind.is_some_and(|kind| api::delete_object(&self.app, kind, &Key::new(namespace, name)))
    }

    /// An object as it is stored, without `kind` and `apiVersion`.
    pub fn get(&self, plural: &str, namespace: &str, name: &str) -> Option<Value> {
        let kind = KINDS.iter().find(|it| it.plural == plural)?;
        let state = self.app.store.read();
        let found = state.get(kind, &Key::new(namespace, name))?;
        Some(found.value())
    }

    /// The revision of the last change.
    pub fn revision(&self) -> u64 {
        self.app.store.read().revision()
    }

    fn create_namespace(&self, name: &str) -> Result<(), String> {
        let namespaces = Kind::find("", "v1", "namespaces").ok_or("no namespaces")?;
        let exists = self
            .app
            .store
            .read()
            .get(namespaces, &Key::new("", name))
            .is_some();
        if exists {
            return Ok(());
        }
        api::create_object(&self.app, namespaces, crate::manifest::namespace(name))
            .map(drop)
            .map_err(|it| it.message)
    }
}
