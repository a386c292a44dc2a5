//! Follows objects of any kind in all namespaces, and writes their status: the basis of controllers,
//! such as that of a gateway.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use waypost_kubernetes::KubernetesProvider;
//! use waypost_kubernetes::objects::ObjectKind;
//!
//! const NAMESPACES: ObjectKind = ObjectKind::new("", "v1", "namespaces");
//! let provider = KubernetesProvider::builder().build()?;
//! let mut watch = provider.objects().watch(&[NAMESPACES], |_, object| Some(object));
//! let kinds = watch.changed().await.ok_or("the watch has ended")?;
//! if let Some(error) = kinds[0].error() {
//!     eprintln!("the list may be outdated: {error}");
//! }
//! for (key, _) in kinds[0].iter() {
//!     println!("{key}");
//! }
//! # Ok(())
//! # }
//! ```

mod state;
mod task;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use waypost_core::ProviderError;

use self::task::Task;
use crate::client::{ApiClient, GetRequest};
pub use crate::object_key::ObjectKey;

/// A kind of object, by its API group, version and plural name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ObjectKind {
    group: &'static str,
    version: &'static str,
    plural: &'static str,
}

impl ObjectKind {
    /// For example `("gateway.networking.k8s.io", "v1", "httproutes")`. The core group is empty.
    pub const fn new(group: &'static str, version: &'static str, plural: &'static str) -> Self {
        Self {
            group,
            version,
            plural,
        }
    }

    /// The plural name, as in URLs and in the rules of roles.
    pub fn plural(&self) -> &'static str {
        self.plural
    }

    /// The API group; empty for the core group.
    pub fn group(&self) -> &'static str {
        self.group
    }

    /// The URL path of the objects in all namespaces.
    fn path(&self) -> String {
        format!("{}/{}", self.api(), self.plural)
    }

    /// The URL path of one object.
    fn object_path(&self, ObjectKey { namespace, name }: &ObjectKey) -> String {
        let (api, plural) = (self.api(), self.plural);
        if namespace.is_empty() {
            format!("{api}/{plural}/{name}")
        } else {
            format!("{api}/namespaces/{namespace}/{plural}/{name}")
        }
    }

    fn api(&self) -> String {
        let version = self.version;
        match self.group {
            "" => format!("/api/{version}"),
            group => format!("/apis/{group}/{version}"),
        }
    }
}

impl fmt::Display for ObjectKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.group {
            "" => f.write_str(self.plural),
            group => write!(f, "{}.{group}", self.plural),
        }
    }
}

/// The objects of one kind as they were last known.
#[derive(Debug)]
pub struct Objects<T> {
    kind: ObjectKind,
    objects: Arc<BTreeMap<ObjectKey, Arc<T>>>,
    confirmed_at: Option<Instant>,
    error: Option<ProviderError>,
    is_refused: bool,
}

impl<T> Clone for Objects<T> {
    fn clone(&self) -> Self {
        Self {
            kind: self.kind,
            objects: Arc::clone(&self.objects),
            confirmed_at: self.confirmed_at,
            error: self.error.clone(),
            is_refused: self.is_refused,
        }
    }
}

impl<T> Objects<T> {
    /// The kind of these objects.
    pub fn kind(&self) -> &ObjectKind {
        &self.kind
    }

    /// The objects in the order of their keys.
    pub fn iter(&self) -> impl Iterator<Item = (&ObjectKey, &Arc<T>)> {
        self.objects.iter()
    }

    /// Whether all objects have been listed once.
    pub fn is_listed(&self) -> bool {
        self.confirmed_at.is_some()
    }

    /// When the server last confirmed that the objects are up to date; `None` if it never did.
    pub fn confirmed_at(&self) -> Option<Instant> {
        self.confirmed_at
    }

    /// Why the objects may be outdated, or why they are unknown.
    pub fn error(&self) -> Option<&ProviderError> {
        self.error.as_ref()
    }

    /// Whether the server answered that it has no such kind, or that this client may not read it. It is
    /// asked again, at most every 30 s.
    pub fn is_refused(&self) -> bool {
        self.is_refused
    }
}

/// Reads objects of any kind, and writes their status.
#[derive(Clone, Debug)]
pub struct ObjectClient {
    client: Arc<ApiClient>,
}

impl ObjectClient {
    pub(crate) fn new(client: &Arc<ApiClient>) -> Self {
        Self {
            client: Arc::clone(client),
        }
    }

    /// Follows all objects of these kinds in all namespaces, until the watch is dropped. `parse` turns
    /// the JSON of an object into the value that is kept; `None` if it is unreadable. The last readable
    /// version of such an object is kept, if there is one.
    ///
    /// Known objects are kept if the server fails. An empty list after a failure is applied only if it
    /// lasts for 10 s, since the server's etcd may have been wiped.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn watch<T: Send + Sync + 'static>(
        &self,
        kinds: &[ObjectKind],
        parse: impl Fn(&ObjectKind, Value) -> Option<T> + Send + 'static,
    ) -> ObjectWatch<T> {
        let (task, latest) = Task::new(&self.client, kinds, parse);
        ObjectWatch {
            latest,
            task: tokio::spawn(task.run()),
        }
    }

    /// Reads an object; `None` if it doesn't exist. This needs only the verb `get`, which a role can limit to
    /// objects with certain names. The namespace and the name must be valid, since they become part of a URL.
    ///
    /// # Errors
    /// If the server can't be reached, or refuses the request.
    pub async fn get(
        &self,
        kind: &ObjectKind,
        key: &ObjectKey,
    ) -> Result<Option<Value>, ProviderError> {
        let path = kind.object_path(key);
        let get = GetRequest::new(&path, &[]);
        match self.client.get(get, ApiClient::DEADLINE).await {
            Ok(object) => Ok(Some(object)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Applies a JSON merge patch (RFC 7396) to the status of an object. With a
    /// `metadata.resourceVersion` in the patch, it is applied only if the object still has that version.
    ///
    /// # Errors
    /// If the server can't be reached, or refuses the patch.
    pub async fn patch_status(
        &self,
        kind: &ObjectKind,
        key: &ObjectKey,
        patch: &Value,
    ) -> Result<StatusPatch, ProviderError> {
        let path = format!("{}/status", kind.object_path(key));
        match self.client.merge_patch(&path, patch).await {
            Ok(()) => Ok(StatusPatch::Applied),
            Err(error) if error.is_conflict() => Ok(StatusPatch::Conflict),
            Err(error) if error.is_not_found() => Ok(StatusPatch::NotFound),
            Err(error) => Err(error.into()),
        }
    }
}

/// The result of [`ObjectClient::patch_status`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StatusPatch {
    /// The patch has been applied.
    Applied,
    /// The object has changed in the meantime, and the patch was not applied.
    Conflict,
    /// There is no such object.
    NotFound,
}

/// Follows objects; see [`ObjectClient::watch`].
#[derive(Debug)]
pub struct ObjectWatch<T> {
    latest: watch::Receiver<Vec<Objects<T>>>,
    task: JoinHandle<()>,
}

impl<T> ObjectWatch<T> {
    /// Waits for a change, and returns all kinds in the order in which they were given. The first call
    /// returns as soon as there is a list or an error. `None` if the watch has ended with its runtime.
    pub async fn changed(&mut self) -> Option<Vec<Objects<T>>> {
        self.latest.changed().await.ok()?;
        Some(self.latest.borrow_and_update().clone())
    }
}

impl<T> Drop for ObjectWatch<T> {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_has_a_path_by_its_group_version_and_plural_name() {
        for (group, plural, api, text) in [
            ("", "services", "/api/v1", "services"),
            (
                "example.org",
                "things",
                "/apis/example.org/v1",
                "things.example.org",
            ),
        ] {
            let kind = ObjectKind::new(group, "v1", plural);
            assert_eq!((kind.group(), kind.plural()), (group, plural));
            assert_eq!(kind.to_string(), text);
            assert_eq!(kind.path(), format!("{api}/{plural}"));
            let in_demo = kind.object_path(&ObjectKey::new("demo", "a"));
            assert_eq!(in_demo, format!("{api}/namespaces/demo/{plural}/a"));
            let in_cluster = kind.object_path(&ObjectKey::new("", "a"));
            assert_eq!(in_cluster, format!("{api}/{plural}/a"));
        }
    }
}
