//! The objects of one kind, as a reflector has reported them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::error::RequestError;
use crate::object_key::ObjectKey;
use crate::reflector::ReflectorEvent;
use crate::resources::Resource;
use crate::scope::Scope;
use crate::sync_state::SyncState;

/// The objects of one kind, and the error of the latest request for them.
pub(crate) struct Store<T> {
    /// The objects that the reflector follows.
    requested: Scope,
    /// The scope of the latest list.
    listed: Option<Scope>,
    error: Option<RequestError>,
    objects: HashMap<ObjectKey, Arc<T>>,
}

/// The change that an event made to a store.
pub(crate) enum Delta<T> {
    /// No object has changed.
    None,
    /// One object was added, modified or deleted.
    Object {
        before: Option<Arc<T>>,
        after: Option<Arc<T>>,
    },
    /// Any object may have changed.
    Replaced,
}

impl<T: Resource> Store<T> {
    pub(crate) fn new() -> Self {
        Self {
            requested: Scope::empty(),
            listed: None,
            error: None,
            objects: HashMap::new(),
        }
    }

    /// Requests the objects of `scope`, and returns whether that needs a new reflector. The scope is
    /// never narrowed: watching more objects than needed costs less than a new list.
    pub(crate) fn request(&mut self, scope: &Scope) -> bool {
        let is_wider = !scope.is_within(&self.requested);
        if is_wider {
            self.requested = scope.clone();
        }
        is_wider
    }

    /// Applies an event of the reflector that follows the requested scope.
    pub(crate) fn apply(&mut self, event: ReflectorEvent<T>) -> Delta<T> {
        self.error = None;
        match event {
            ReflectorEvent::Listed {
                objects,
                watch_error,
                ..
            } => {
                self.error = watch_error;
                self.replace(objects);
                Delta::Replaced
            }
            ReflectorEvent::Applied(object) => {
                let name = object.metadata().key();
                let object = Arc::new(object);
                Delta::Object {
                    before: self.objects.insert(name, Arc::clone(&object)),
                    after: Some(object),
                }
            }
            ReflectorEvent::Deleted(name) => Delta::Object {
                before: self.objects.remove(&name),
                after: None,
            },
            ReflectorEvent::Resumed | ReflectorEvent::Confirmed => Delta::None,
            ReflectorEvent::Failed(error) => {
                self.error = Some(error);
                Delta::None
            }
        }
    }

    /// Records that the objects are outdated, unless access to them is denied anyway.
    pub(crate) fn fail(&mut self, error: &RequestError) {
        if !self.is_access_denied() {
            self.error = Some(error.clone());
        }
    }

    fn replace(&mut self, objects: Vec<T>) {
        let mut before = std::mem::take(&mut self.objects);
        self.listed = Some(self.requested.clone());
        self.objects = objects
            .into_iter()
            .map(|object| {
                let name = object.metadata().key();
                // Comparing resource versions is not enough: after a rollback of etcd, an object with
                // the same version can have different content.
                let unchanged = before.remove(&name).filter(|before| **before == object);
                (name, unchanged.unwrap_or_else(|| Arc::new(object)))
            })
            .collect();
    }

    pub(crate) fn get(&self, name: &ObjectKey) -> Option<&Arc<T>> {
        self.objects.get(name)
    }

    pub(crate) fn objects(&self) -> impl Iterator<Item = &Arc<T>> {
        self.objects.values()
    }

    /// The error of the latest request, if it failed.
    pub(crate) fn error(&self) -> Option<&RequestError> {
        self.error.as_ref()
    }

    /// Whether the server denied access at the latest request.
    pub(crate) fn is_access_denied(&self) -> bool {
        self.error
            .as_ref()
            .is_some_and(RequestError::is_access_denied)
    }

    /// Whether all objects have been listed once.
    pub(crate) fn has_listed_all(&self) -> bool {
        self.listed == Some(Scope::All)
    }

    /// Whether the objects are up to date, as far as the reflector can tell.
    pub(crate) fn is_followed(&self) -> bool {
        self.listed.is_some() && self.error.is_none()
    }

    /// The state of the objects of one Service, given by its name.
    pub(crate) fn sync_state(&self, service: &str) -> SyncState {
        let listed = self.listed.as_ref();
        self.sync_state_if(listed.is_some_and(|scope| scope.includes(service)))
    }

    /// The state of all objects.
    pub(crate) fn sync_state_of_all(&self) -> SyncState {
        self.sync_state_if(self.has_listed_all())
    }

    fn sync_state_if(&self, is_listed: bool) -> SyncState {
        match (is_listed, &self.error) {
            (true, None) => SyncState::Synced,
            (false, None) => SyncState::Pending,
            (true, Some(error)) if error.is_access_denied() => SyncState::Revoked,
            (false, Some(error)) if error.is_access_denied() => SyncState::Denied,
            (true, Some(_)) => SyncState::Stale,
            (false, Some(_)) => SyncState::Unavailable,
        }
    }

    /// Whether the reflector depends on the server: it follows changes, or would if the server
    /// answered.
    pub(crate) fn needs_liveness_probes(&self) -> bool {
        match &self.error {
            Some(error) => !error.is_access_denied(),
            None => self.listed.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::resources::EndpointSlice;

    fn slice(name: &str, address_type: &str) -> EndpointSlice {
        let meta = json!({ "name": name, "namespace": "demo" });
        let object = json!({ "metadata": meta, "addressType": address_type });
        serde_json::from_value(object).unwrap()
    }

    fn name(name: &str) -> ObjectKey {
        ObjectKey {
            namespace: "demo".into(),
            name: name.into(),
        }
    }

    fn listed(objects: Vec<EndpointSlice>) -> ReflectorEvent<EndpointSlice> {
        ReflectorEvent::Listed {
            objects,
            watch_error: None,
            rolled_back: None,
        }
    }

    #[test]
    fn a_new_list_keeps_unchanged_objects_and_deletes_missing_ones() {
        let mut store = Store::new();
        assert!(store.request(&Scope::All));
        store.apply(listed(vec![slice("a", "IPv4"), slice("b", "IPv4")]));
        let before = Arc::clone(store.get(&name("a")).unwrap());
        store.apply(listed(vec![slice("a", "IPv4"), slice("c", "IPv6")]));
        assert!(Arc::ptr_eq(&before, store.get(&name("a")).unwrap()));
        assert!(store.get(&name("b")).is_none() && store.get(&name("c")).is_some());
    }

    #[test]
    fn objects_of_a_wider_scope_are_pending_until_they_are_listed() {
        let mut store = Store::<EndpointSlice>::new();
        let web = Scope::Services(["web".into()].into());
        assert!(!store.request(&Scope::empty()));
        assert!(store.request(&web) && !store.request(&web));
        store.apply(listed(Vec::new()));
        assert!(store.request(&Scope::All) && !store.request(&web));
        assert_eq!(store.sync_state("web"), SyncState::Synced);
        assert_eq!(store.sync_state("shop"), SyncState::Pending);
        assert_eq!(store.sync_state_of_all(), SyncState::Pending);
        store.apply(listed(Vec::new()));
        assert_eq!(store.sync_state_of_all(), SyncState::Synced);
    }
}
