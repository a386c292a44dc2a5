//! Everything a request can reach.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::faults::Faults;
use crate::guard::Guard;
use crate::monitor::Monitor;
use crate::registration::Registration;
use crate::store::Store;

/// The parts of a running agent.
#[derive(Debug)]
pub(crate) struct App {
    pub node_name: String,
    pub node_id: String,
    /// What the node says of itself.
    pub node_meta: BTreeMap<String, String>,
    pub datacenter: String,
    pub started: SystemTime,
    /// The address of the node, as the catalog shows it.
    pub address: String,
    pub store: Arc<Store>,
    pub registration: Registration,
    pub faults: Faults,
    pub guard: Guard,
    pub monitor: Arc<Monitor>,
    /// Told when a client asks the agent to leave.
    pub left: tokio::sync::watch::Sender<bool>,
    pub random: Mutex<fastrand::Rng>,
}

/// The port on which a Consul server talks to others. Nobody listens here; it is only shown.
pub(crate) const SERVER_PORT: u16 = 8300;

impl App {
    /// Who leads: this node.
    pub(crate) fn leader(&self) -> String {
        format!("{}:{SERVER_PORT}", self.address)
    }

    /// When it started (RFC 3339).
    pub(crate) fn started(&self) -> String {
        let started = self.started.max(UNIX_EPOCH);
        humantime::format_rfc3339_nanos(started).to_string()
    }

    pub(crate) fn random<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
