//! Who waits for what. A change wakes only those who watch what it touched.

use std::collections::HashMap;
use std::sync::Arc;

use event_listener::{Event, EventListener};

use super::Store;

/// Something that can be waited for. Names are folded (see [`super::fold`]).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Topic {
    /// The list of nodes.
    Nodes,
    /// The list of services, with their tags.
    Services,
    /// Any check.
    Checks,
    /// One node, its services and its checks.
    Node(String),
    /// One service: its instances, their checks and their nodes.
    Service(String),
}

/// The waiting parties of each topic. A topic nobody waits for takes no memory.
#[derive(Debug, Default)]
pub(super) struct Watches {
    events: HashMap<Topic, Arc<Event>>,
}

/// A place in the queue of one topic; leaving it is dropping it.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    store: &'a Store,
    topic: Topic,
    event: Arc<Event>,
}

impl Watches {
    pub(super) fn join(&mut self, topic: Topic) -> Arc<Event> {
        Arc::clone(self.events.entry(topic).or_default())
    }

    pub(super) fn of(&self, topic: &Topic) -> Option<Arc<Event>> {
        self.events.get(topic).cloned()
    }

    /// Forgets the topic if nobody but the one who leaves holds its event.
    fn leave(&mut self, topic: &Topic) {
        if self
            .events
            .get(topic)
            .is_some_and(|event| Arc::strong_count(event) <= 2)
        {
            self.events.remove(topic);
        }
    }
}

impl<'a> Watch<'a> {
    pub(super) fn new(store: &'a Store, topic: Topic, event: Arc<Event>) -> Self {
        Self {
            store,
            topic,
            event,
        }
    }

    /// Resolves at the next change *after this call*. Listen first, then read, and no change
    /// between the two is missed.
    pub(crate) fn listen(&self) -> EventListener {
        self.event.listen()
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.store.lock().watches.leave(&self.topic);
    }
}
