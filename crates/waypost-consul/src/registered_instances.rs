//! Records what is known about the instances that this process has registered.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use waypost_core::InstanceId;

/// The agents with which each instance was registered, and the last known status of its checks.
///
/// Several agents may share a DNS name. If the agent that has a registration doesn't answer, the instance is
/// registered with another one. When the first agent is available again, it may restore the registration from
/// its data directory. Without this record, that registration would get no heartbeats and would never be
/// removed.
///
/// If an agent has lost its data, the instance is registered again with the known statuses.
#[derive(Debug, Default)]
pub(super) struct RegisteredInstances {
    instances: Mutex<HashMap<InstanceId, Entry>>,
}

#[derive(Debug, Default)]
struct Entry {
    agents: Vec<IpAddr>,
    /// The last known status of each check, by its id.
    statuses: HashMap<String, String>,
    /// When to try again to deregister the instance with the earlier agents, if that was tried.
    retry_at: Option<Instant>,
}

impl RegisteredInstances {
    /// The time between two attempts to deregister with an earlier agent.
    const RETRY: Duration = Duration::from_secs(30);

    /// Records that the instance may be registered with this agent.
    pub(super) fn add(&self, id: &InstanceId, agent: IpAddr) {
        let mut instances = self.instances();
        let entry = instances.entry(id.clone()).or_default();
        if !entry.agents.contains(&agent) {
            entry.agents.push(agent);
        }
    }

    /// Records the status of the instance's checks.
    pub(super) fn set_statuses(&self, id: &InstanceId, statuses: HashMap<String, String>) {
        self.instances().entry(id.clone()).or_default().statuses = statuses;
    }

    /// The last known status of a check.
    pub(super) fn status(&self, id: &InstanceId, check: &str) -> Option<String> {
        self.instances().get(id)?.statuses.get(check).cloned()
    }

    /// The agents other than `current` that the instance was registered with, if it is time to try
    /// again to deregister it there.
    pub(super) fn due(&self, id: &InstanceId, current: IpAddr) -> Vec<IpAddr> {
        let mut instances = self.instances();
        let Some(entry) = instances.get_mut(id) else {
            return Vec::new();
        };
        let now = Instant::now();
        if entry.retry_at.is_some_and(|at| at > now) {
            return Vec::new();
        }
        let agents = entry.agents.iter().copied();
        let others: Vec<_> = agents.filter(|agent| *agent != current).collect();
        if !others.is_empty() {
            entry.retry_at = Some(now + Self::RETRY);
        }
        others
    }

    /// Records that the instance is no longer registered with this agent.
    pub(super) fn remove(&self, id: &InstanceId, agent: IpAddr) {
        if let Some(entry) = self.instances().get_mut(id) {
            entry.agents.retain(|each| *each != agent);
        }
    }

    /// Removes and returns all agents that the instance was registered with.
    pub(super) fn take(&self, id: &InstanceId) -> Vec<IpAddr> {
        let entry = self.instances().remove(id);
        entry.map_or_else(Vec::new, |entry| entry.agents)
    }

    /// Each entry is valid on its own, so a poisoned lock can still be used.
    fn instances(&self) -> MutexGuard<'_, HashMap<InstanceId, Entry>> {
        (self.instances.lock()).unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn deregistration_with_an_earlier_agent_is_tried_every_thirty_seconds() {
        let (earlier, current) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let (id, registered) = (InstanceId::from("web-1"), RegisteredInstances::default());
        registered.add(&id, earlier);
        registered.add(&id, current);
        for _ in 0..2 {
            assert_eq!(registered.due(&id, current), [earlier]);
            advance(Duration::from_secs(29)).await;
            assert!(registered.due(&id, current).is_empty());
            advance(Duration::from_secs(1)).await;
        }
        registered.remove(&id, earlier);
        assert!(registered.due(&id, current).is_empty());
    }
}
