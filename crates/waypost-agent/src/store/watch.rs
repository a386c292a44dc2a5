//! Watching for changes by topic. A change wakes only the watchers of the topics that it touched.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use event_listener::{Event, EventListener};

/// Something that can change. Names are case-folded (see [`super::fold_case()`]).
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
    /// One key. A change of it also wakes watchers of its prefixes.
    Key(String),
    /// All keys with a prefix.
    Prefix(String),
    /// The coordinates of nodes.
    Coordinates,
    /// User events.
    Events,
    /// The list of sessions.
    Sessions,
    /// One service: its instances, their checks and their nodes.
    Service(String),
}

/// The events that notify the watchers of each topic. A topic without a watcher takes no memory.
#[derive(Debug, Default)]
pub(super) struct Watches {
    events: Mutex<Events>,
}

#[derive(Debug, Default)]
struct Events {
    by_topic: HashMap<Topic, Arc<Event>>,
    by_prefix: HashMap<String, Arc<Event>>,
}

/// A subscription to one topic. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Watch<'a> {
    watches: &'a Watches,
    topic: Topic,
    event: Arc<Event>,
}

impl Watches {
    pub(super) fn subscribe(&self, topic: Topic) -> Watch<'_> {
        let mut events = self.lock();
        let event = match topic.clone() {
            Topic::Prefix(prefix) => events.by_prefix.entry(prefix).or_default(),
            topic => events.by_topic.entry(topic).or_default(),
        };
        Watch {
            watches: self,
            topic,
            event: Arc::clone(event),
        }
    }

    /// Wakes the watchers of the topics.
    pub(super) fn notify(&self, topics: &[Topic]) {
        if topics.is_empty() {
            return;
        }
        let events = self.lock();
        let woken: Vec<_> = topics
            .iter()
            .flat_map(|topic| events.watching(topic))
            .collect();
        drop(events);
        for event in woken {
            event.notify(usize::MAX);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Events {
    /// The events of a topic, and of the prefixes of a key.
    fn watching(&self, topic: &Topic) -> impl Iterator<Item = Arc<Event>> {
        let key = match topic {
            Topic::Key(key) if !self.by_prefix.is_empty() => Some(key),
            _ => None,
        };
        let prefixes = key.into_iter().flat_map(|key| {
            let ends = key.char_indices().map(|(at, _)| at).chain([key.len()]);
            ends.filter_map(|end| self.by_prefix.get(&key[..end]))
        });
        self.by_topic
            .get(topic)
            .into_iter()
            .chain(prefixes)
            .cloned()
    }

    /// Removes the event of a topic if only the map and the dropped [`Watch`] hold it.
    fn unsubscribe(&mut self, topic: &Topic) {
        let is_last = |event: &Arc<Event>| Arc::strong_count(event) <= 2;
        match topic {
            Topic::Prefix(prefix) if self.by_prefix.get(prefix).is_some_and(is_last) => {
                self.by_prefix.remove(prefix);
            }
            topic if self.by_topic.get(topic).is_some_and(is_last) => {
                self.by_topic.remove(topic);
            }
            _ => {}
        }
    }
}

impl Watch<'_> {
    /// Notified at the next change *after this call*. Listen first and then read, so that no change
    /// between the two is missed.
    pub(crate) fn listen(&self) -> EventListener {
        self.event.listen()
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.watches.lock().unsubscribe(&self.topic);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn a_change_of_a_key_wakes_the_watchers_of_the_key_and_of_its_prefixes() {
        let watches = Watches::default();
        for (topic, is_woken) in [
            (Topic::Key("a/b".into()), true),
            (Topic::Key("a/c".into()), false),
            (Topic::Prefix(String::new()), true),
            (Topic::Prefix("a/".into()), true),
            (Topic::Prefix("a/b".into()), true),
            (Topic::Prefix("a/b/".into()), false),
            (Topic::Prefix("b".into()), false),
            (Topic::Nodes, false),
        ] {
            let watch = watches.subscribe(topic.clone());
            let changed = watch.listen();
            watches.notify(&[Topic::Key("a/b".into())]);
            assert_eq!(changed.now_or_never().is_some(), is_woken, "{topic:?}");
        }
    }

    #[test]
    fn a_topic_without_a_watcher_takes_no_memory() {
        let watches = Watches::default();
        for topic in [
            Topic::Prefix("a/".into()),
            Topic::Key("a/".into()),
            Topic::Nodes,
        ] {
            let counts = || {
                let events = watches.lock();
                events.by_topic.len() + events.by_prefix.len()
            };
            let first = watches.subscribe(topic.clone());
            let second = watches.subscribe(topic.clone());
            drop(first);
            assert_eq!(counts(), 1, "{topic:?}");
            let changed = second.listen();
            watches.notify(&[Topic::Key("a/".into()), Topic::Nodes]);
            assert!(changed.now_or_never().is_some(), "{topic:?}");
            drop(second);
            assert_eq!(counts(), 0, "{topic:?}");
        }
    }
}
