//! The state that all requests share (store, credentials and faults), and the operations on objects.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::admission::{admit, condition_faults};
use crate::auth::credentials::Credentials;
use crate::faults::Faults;
use crate::http::status::Status;
use crate::kind::Kind;
use crate::request_log::RequestLog;
use crate::store::Store;
use crate::store::object::{Key, Object};

/// The settings of a server. The defaults are those of the API server.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The time between two bookmarks of a watch.
    pub bookmark_interval: Duration,
    /// How long before the end of a watch its last bookmark comes.
    pub last_bookmark: Duration,
    /// A watch is closed if its reader takes nothing for this time while more than this number of
    /// changes wait.
    pub slow_reader: (Duration, usize),
    /// How long open watches continue after a termination.
    pub termination_tail: Duration,
    /// Requests other than watches fail after this time.
    pub request_timeout: Duration,
    /// How long the deletion of a namespace takes.
    pub namespace_deletion: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bookmark_interval: Duration::from_secs(60),
            last_bookmark: Duration::from_secs(2),
            slow_reader: (Duration::from_millis(250), 100),
            termination_tail: Duration::from_secs(60),
            request_timeout: Duration::from_secs(60),
            namespace_deletion: Duration::from_secs(5),
        }
    }
}

/// The state that all requests share.
pub(crate) struct Cluster {
    pub credentials: Credentials,
    pub faults: Faults,
    pub requests: RequestLog,
    pub settings: Settings,
    /// Notifies open watches that their time is over.
    pub watch_end: Arc<Notify>,
    store: Mutex<Store>,
    /// The number of identifiers generated so far.
    ids: AtomicU64,
}

impl Cluster {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            credentials: Credentials::default(),
            faults: Faults::default(),
            requests: RequestLog::default(),
            settings,
            watch_end: Arc::default(),
            store: Mutex::new(Store::new()),
            ids: AtomicU64::new(0),
        }
    }

    pub(crate) fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new identifier in the form of a UUID.
    pub(crate) fn new_id(&self) -> String {
        let number = self.ids.fetch_add(1, Relaxed);
        format!("00000000-0000-4000-8000-{number:012x}")
    }

    /// Creates an object; its metadata names its key.
    pub(crate) fn create(&self, kind: Kind, object: Value) -> Result<Arc<Object>, Status> {
        let mut object = normalize(kind, object)?;
        let key = Key::of(&object);
        let mut store = self.store();
        if kind.is_namespaced() {
            check_namespace(&store, kind, &key)?;
        }
        if store.get(kind, &key).is_some() {
            return Err(Status::already_exists(kind, &key.name));
        }
        object["metadata"]["uid"] = self.new_id().into();
        object["metadata"]["creationTimestamp"] = now().into();
        if kind.is_custom() {
            object["metadata"]["generation"] = 1.into();
            if let Some(object) = object.as_object_mut() {
                object.remove("status");
            }
        }
        admit(kind, &mut object, None)?;
        Ok(store.put(kind, object))
    }

    /// Replaces the object of the same key. If nothing changes, nothing is stored.
    pub(crate) fn replace(&self, kind: Kind, object: Value) -> Result<Arc<Object>, Status> {
        let mut object = normalize(kind, object)?;
        let key = Key::of(&object);
        let mut store = self.store();
        let current = store.get(kind, &key).cloned();
        let current = current.ok_or_else(|| Status::not_found(kind, &key.name))?;
        let before = current.value();
        let version = object["metadata"]["resourceVersion"].as_str();
        if version.is_some_and(|it| it != current.revision.to_string()) {
            let why = "the object has been modified; please apply your changes to the latest \
                       version and try again";
            return Err(Status::conflict(kind, &key.name, why));
        }
        for field in ["uid", "creationTimestamp", "resourceVersion"] {
            object["metadata"][field] = before["metadata"][field].clone();
        }
        if kind.is_custom() {
            let generation = before["metadata"]["generation"].as_u64().unwrap_or(0);
            let is_changed = object["spec"] != before["spec"];
            object["metadata"]["generation"] = (generation + u64::from(is_changed)).into();
            match before.get("status") {
                Some(status) => object["status"] = status.clone(),
                None => drop(object.as_object_mut().map(|object| object.remove("status"))),
            }
        }
        admit(kind, &mut object, Some(&before))?;
        if object == before {
            return Ok(current);
        }
        Ok(store.put(kind, object))
    }

    /// Applies a merge patch to the status of an object. If nothing changes, nothing is stored.
    pub(crate) fn patch_status(
        &self,
        kind: Kind,
        key: &Key,
        patch: &Value,
    ) -> Result<Arc<Object>, Status> {
        let mut store = self.store();
        let current = store.get(kind, key).cloned();
        let current = current.ok_or_else(|| Status::not_found(kind, &key.name))?;
        let version = patch["metadata"]["resourceVersion"].as_str();
        if version.is_some_and(|it| it != current.revision.to_string()) {
            let why = "the object has been modified; please apply your changes to the latest \
                       version and try again";
            return Err(Status::conflict(kind, &key.name, why));
        }
        let before = current.value();
        let mut object = before.clone();
        merge(&mut object["status"], &patch["status"]);
        let faults = condition_faults("status", &object["status"]);
        if !faults.is_empty() {
            return Err(Status::invalid(kind, &key.name, &faults));
        }
        if object == before {
            return Ok(current);
        }
        Ok(store.put(kind, object))
    }

    /// Deletes an object, if it has this resource version or none is given. A namespace is deleted
    /// with its objects, after a delay.
    pub(crate) fn delete(
        self: &Arc<Self>,
        kind: Kind,
        key: &Key,
        version: Option<&str>,
    ) -> Result<(), Status> {
        let mut store = self.store();
        let current = store.get(kind, key);
        let current = current.ok_or_else(|| Status::not_found(kind, &key.name))?;
        let found = current.revision.to_string();
        if let Some(wanted) = version.filter(|it| *it != found) {
            let why = format!(
                "the ResourceVersion in the precondition ({wanted}) does not match the \
                 ResourceVersion in record ({found}). The object might have been modified"
            );
            return Err(Status::conflict(kind, &key.name, &why));
        }
        if kind == Kind::Namespace {
            let mut namespace = current.value();
            namespace["status"] = json!({ "phase": "Terminating" });
            store.put(kind, namespace);
            self.delete_namespace_later(key.clone());
        } else {
            store.remove(kind, key);
        }
        Ok(())
    }

    fn delete_namespace_later(self: &Arc<Self>, namespace: Key) {
        let cluster = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(cluster.settings.namespace_deletion).await;
            let mut store = cluster.store();
            for kind in Kind::ALL {
                let objects = store.objects(kind, &namespace.name);
                let keys: Vec<Key> = objects.map(|it| it.key.clone()).collect();
                for key in keys {
                    store.remove(kind, &key);
                }
            }
            store.remove(Kind::Namespace, &namespace);
        });
    }
}

/// Applies a JSON merge patch (RFC 7396).
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(changes) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, change) in changes {
        if change.is_null() {
            target.as_object_mut().map(|target| target.remove(key));
        } else {
            merge(&mut target[key], change);
        }
    }
}

fn normalize(kind: Kind, object: Value) -> Result<Value, Status> {
    let mut object = kind.normalize(object).map_err(|error| {
        let name = kind.name();
        Status::bad_request(format!("the object cannot be handled as a {name}: {error}"))
    })?;
    if let Some(object) = object.as_object_mut() {
        object.remove("kind");
        object.remove("apiVersion");
    }
    Ok(object)
}

/// Refuses an object whose namespace is absent or being deleted.
fn check_namespace(store: &Store, kind: Kind, key: &Key) -> Result<(), Status> {
    let name = &key.namespace;
    let Some(namespace) = store.get(Kind::Namespace, &Key::new("", name)) else {
        return Err(Status::not_found(Kind::Namespace, name));
    };
    if namespace.value()["status"]["phase"] == "Terminating" {
        return Err(Status::terminating(kind, &key.name, name));
    }
    Ok(())
}

/// The time as Kubernetes writes it.
fn now() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}
