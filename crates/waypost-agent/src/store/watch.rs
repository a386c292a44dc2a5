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
    /// One key. Touching it also wakes those who watch a prefix of it.
    Key(String),
    /// All keys that start so.
    Prefix(String),
    /// Where nodes are.
    Coordinates,
    /// What has been fired.
    Events,
    /// The list of sessions.
    Sessions,
    /// One service: its instances, their checks and their nodes.
    Service(String),
}

/// The waiting parties of each topic. A topic nobody waits for takes no memory.
#[derive(Debug, Default)]
pub(super) struct Watches {
    events: HashMap<Topic, Arc<Event>>,
    prefixes: HashMap<String, Arc<Event>>,
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
        let event = match topic {
            Topic::Prefix(prefix) => self.prefixes.entry(prefix).or_default(),
            topic => self.events.entry(topic).or_default(),
        };
        Arc::clone(event)
    }

    /// Those to wake when the topic is touched.
    pub(super) fn of(&self, topic: &Topic) -> impl Iterator<Item = Arc<Event>> {
        let key = match topic {
            Topic::Key(key) if !self.prefixes.is_empty() => Some(key),
            _ => None,
        };
        let prefixes = key.into_iter().flat_map(|key| {
            let ends = key.char_indices().map(|(at, _)| at).chain([key.len()]);
            ends.filter_map(|end| self.prefixes.get(&key[..end]))
        });
        self.events.get(topic).into_iter().chain(prefixes).cloned()
    }

    /// Forgets the topic if nobody but the one who leaves holds its event.
    fn leave(&mut self, topic: &Topic) {
        let is_last = |event: &Arc<Event>| Arc::strong_count(event) <= 2;
        match topic {
            Topic::Prefix(prefix) if self.prefixes.get(prefix).is_some_and(is_last) => {
                self.prefixes.remove(prefix);
            }
            topic if self.events.get(topic).is_some_and(is_last) => {
                self.events.remove(topic);
            }
            _ => {}
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
