//! User events. They aren't state: the latest ones are kept, and no index changes.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::Serialize;

use super::changes::Changes;
use super::watch::Topic;

/// The number of events that are kept, as in Consul.
const MAX_EVENTS: usize = 256;

/// The Lamport time before the first event. The first event of a Consul server has the time 2.
const INITIAL_LTIME: u64 = 1;

/// A user event in Consul's format.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct UserEvent {
    #[serde(rename = "ID")]
    pub id: String,
    pub name: String,
    /// In base64. `null` if there is none.
    pub payload: Option<String>,
    pub node_filter: String,
    pub service_filter: String,
    pub tag_filter: String,
    pub version: u8,
    /// Lamport time: the position among all events. 0 before the event is fired.
    #[serde(rename = "LTime")]
    pub ltime: u64,
}

/// The latest user events, oldest first.
#[derive(Debug, Default)]
pub(crate) struct UserEvents {
    last_ltime: u64,
    latest: VecDeque<Arc<UserEvent>>,
}

impl UserEvents {
    pub(crate) fn latest(&self) -> impl Iterator<Item = &Arc<UserEvent>> {
        self.latest.iter()
    }

    /// Fires an event. It is kept and wakes watchers only if its filters match this node.
    pub(crate) fn fire(&mut self, mut event: UserEvent, matches_node: bool, changes: &mut Changes) {
        self.last_ltime = self.last_ltime.max(INITIAL_LTIME) + 1;
        if !matches_node {
            return;
        }
        event.ltime = self.last_ltime;
        self.latest.push_back(Arc::new(event));
        if self.latest.len() > MAX_EVENTS {
            self.latest.pop_front();
        }
        changes.touch(Topic::Events);
    }
}
