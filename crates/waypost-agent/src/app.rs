//! The parts of a running agent that requests and background tasks share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::Semaphore;

use crate::agent_services::AgentServices;
use crate::auth::Auth;
use crate::faults::Faults;
use crate::http::MemoryBudget;
use crate::monitor::Monitor;
use crate::store::Store;

/// The state of a running agent.
#[derive(Debug)]
pub(crate) struct App {
    pub node_name: String,
    pub node_id: String,
    pub node_meta: BTreeMap<String, String>,
    pub datacenter: String,
    pub started: SystemTime,
    /// The address of the node in the catalog.
    pub address: String,
    pub store: Arc<Store>,
    pub agent_services: AgentServices,
    pub faults: Faults,
    pub auth: Auth,
    pub monitor: Monitor,
    /// Set to true when a client requests that the agent leave.
    pub leave_requested: tokio::sync::watch::Sender<bool>,
    pub random: Mutex<fastrand::Rng>,
    /// Each large body needs a permit while it is read.
    pub large_bodies: Arc<Semaphore>,
    /// The bytes of request heads that aren't complete yet.
    pub unfinished_heads: Arc<MemoryBudget>,
    /// The largest number of connections per listener.
    pub max_connections: usize,
    /// Each evaluation of a filter needs a permit.
    pub evaluations: Arc<Semaphore>,
}

/// The port on which Consul servers talk to each other. It is only shown: nothing listens on it.
pub(crate) const SERVER_PORT: u16 = 8300;

impl App {
    /// The address of the leader, which is always this node.
    pub(crate) fn leader(&self) -> String {
        format!("{}:{SERVER_PORT}", self.address)
    }

    /// When the agent started, as in RFC 3339.
    pub(crate) fn started(&self) -> String {
        let started = self.started.max(UNIX_EPOCH);
        humantime::format_rfc3339_nanos(started).to_string()
    }

    /// Calls `draw` with the random number generator of the agent.
    pub(crate) fn random<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
