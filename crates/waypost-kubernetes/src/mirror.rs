use std::collections::HashMap;
use std::sync::Arc;

use super::connection::Connection;
use super::cover::Cover;
use super::fault::Fault;
use super::reflector::{Change, Marks, Reflector, Selection};
use super::sight::Reading;
use super::wire::Object;

/// The objects of one kind in one namespace, as the server last told them, and how it is with the
/// telling.
pub(super) struct Mirror<T> {
    connection: Arc<Connection>,
    namespace: Arc<str>,
    select: fn(&Cover) -> Option<(&'static str, String)>,
    pub(super) marks: Arc<Marks>,
    reflector: Option<Reflector<T>>,
    /// What the reflector follows.
    wanted: Cover,
    /// What the last whole list was of.
    listed: Option<Cover>,
    fault: Option<Fault>,
    objects: HashMap<Arc<str>, Arc<T>>,
}

/// Which objects a change was about.
pub(super) enum News<T> {
    None,
    /// This one, before and after.
    One(Option<Arc<T>>, Option<Arc<T>>),
    /// Any of them.
    All,
    /// Any of them, and nobody will tell what comes after.
    Frozen,
    /// An attempt failed.
    Failed,
}

impl<T: Object> Mirror<T> {
    pub(super) fn new(
        connection: &Arc<Connection>,
        namespace: &Arc<str>,
        select: fn(&Cover) -> Option<(&'static str, String)>,
    ) -> Self {
        Self {
            connection: Arc::clone(connection),
            namespace: Arc::clone(namespace),
            select,
            marks: Arc::default(),
            reflector: None,
            wanted: Cover::nothing(),
            listed: None,
            fault: None,
            objects: HashMap::new(),
        }
    }

    /// Follows these from now on. More than was followed until now means to list all anew; what is
    /// known stays known meanwhile. Less means nothing as long as the watch lasts.
    pub(super) fn want(&mut self, cover: Cover) {
        if cover.is_within(&self.wanted) {
            return;
        }
        let selection = self.selection(&cover);
        let marks = Arc::clone(&self.marks);
        let connection = Arc::clone(&self.connection);
        self.reflector = Some(Reflector::begin(connection, &selection, marks));
        self.wanted = cover;
    }

    fn selection(&self, cover: &Cover) -> Selection {
        Selection {
            namespace: Arc::clone(&self.namespace),
            only: (self.select)(cover),
        }
    }

    /// Where all of its objects are listed.
    pub(super) fn path(&self) -> String {
        self.selection(&Cover::All).path::<T>()
    }

    pub(super) fn reflector(&self) -> Option<&Reflector<T>> {
        self.reflector.as_ref()
    }

    /// The next change; never, if nothing is wanted. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Change<T> {
        match &mut self.reflector {
            Some(reflector) => reflector.next().await,
            None => std::future::pending().await,
        }
    }

    /// Takes in a change.
    pub(super) fn take(&mut self, change: Change<T>) -> News<T> {
        match change {
            Change::Failed(fault) => {
                self.fault = Some(fault);
                return News::Failed;
            }
            Change::Frozen(objects, fault) => {
                self.replace(objects);
                self.fault = Some(fault);
                return News::Frozen;
            }
            _ => self.fault = None,
        }
        match change {
            Change::Whole(objects) => {
                self.replace(objects);
                News::All
            }
            Change::Applied(object) => {
                let name = Arc::clone(&object.metadata().name);
                let object = Arc::new(object);
                let before = self.objects.insert(name, Arc::clone(&object));
                News::One(before, Some(object))
            }
            Change::Deleted(name) => News::One(self.objects.remove(&*name), None),
            Change::Live | Change::Failed(_) | Change::Frozen(..) => News::None,
        }
    }

    fn replace(&mut self, objects: Vec<T>) {
        let mut before = std::mem::take(&mut self.objects);
        self.listed = Some(self.wanted.clone());
        self.objects = objects
            .into_iter()
            .map(|object| {
                let name = Arc::clone(&object.metadata().name);
                // Versions alone don't tell: after a restore the same one can come a second time.
                let earlier = before.remove(&name).filter(|earlier| **earlier == object);
                (name, earlier.unwrap_or_else(|| Arc::new(object)))
            })
            .collect();
    }

    pub(super) fn get(&self, name: &str) -> Option<&Arc<T>> {
        self.objects.get(name)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<T>> {
        self.objects.values()
    }

    /// Whether all there is of this Service has been told, be it a while ago.
    pub(super) fn knows(&self, service: &str) -> bool {
        self.listed
            .as_ref()
            .is_some_and(|cover| cover.includes(service))
    }

    pub(super) fn knows_all(&self) -> bool {
        self.listed == Some(Cover::All)
    }

    pub(super) fn reading(&self, known: bool) -> Reading<'_> {
        Reading {
            known,
            fault: self.fault.as_ref(),
        }
    }

    /// Whether it is told what changes, as far as is known.
    pub(super) fn is_followed(&self) -> bool {
        self.listed.is_some() && self.fault.is_none()
    }

    /// Whether the server has answered the last attempt, if only to refuse it.
    pub(super) fn is_alive(&self) -> bool {
        let code = self.fault.as_ref().map_or(200, Fault::code);
        (1..500).contains(&code)
    }

    /// Whether we may not read it.
    pub(super) fn is_refused(&self) -> bool {
        self.fault.as_ref().is_some_and(Fault::is_refusal)
    }

    /// Whether anything is followed, or would be if the server answered.
    pub(super) fn needs_pulse(&self) -> bool {
        match &self.fault {
            _ if self.reflector.is_none() => false,
            Some(fault) => !fault.is_refusal(),
            None => self.listed.is_some(),
        }
    }
}
