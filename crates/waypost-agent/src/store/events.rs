//! Events that somebody has fired. They are news, not state: the last few are kept, and no index
//! moves.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::Serialize;

use super::{Changes, State, Topic};

/// So many are kept, as by Consul.
const MOST: usize = 256;

/// The first event's time is one more than this. Consul has counted its own start by then.
const EPOCH: u64 = 1;

/// An event as Consul shows it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Event {
    #[serde(rename = "ID")]
    pub id: String,
    pub name: String,
    /// In base64; none is `null`.
    pub payload: Option<String>,
    pub node_filter: String,
    pub service_filter: String,
    pub tag_filter: String,
    pub version: u8,
    /// Its place in the order of all events; 0 until it has one.
    #[serde(rename = "LTime")]
    pub time: u64,
}

/// The latest events, in order.
#[derive(Debug, Default)]
pub(crate) struct Events {
    last_time: u64,
    latest: VecDeque<Arc<Event>>,
}

impl Events {
    pub(crate) fn latest(&self) -> impl Iterator<Item = &Arc<Event>> {
        self.latest.iter()
    }
}

impl State {
    /// Tells everybody who waits for events, if the event `concerns` this node.
    pub(crate) fn fire(&mut self, mut event: Event, concerns: bool, changes: &mut Changes) {
        self.events.last_time = self.events.last_time.max(EPOCH) + 1;
        if !concerns {
            return;
        }
        event.time = self.events.last_time;
        self.events.latest.push_back(Arc::new(event));
        if self.events.latest.len() > MOST {
            self.events.latest.pop_front();
        }
        changes.touch(Topic::Events);
    }
}
