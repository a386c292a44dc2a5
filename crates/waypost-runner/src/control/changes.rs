//! Numbers the changes of the services, and keeps the most recent ones for clients that reconnect.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::broadcast;

use super::view::ServiceView;

/// The number of changes that are kept.
const KEPT: usize = 1024;

/// A change of a service, as JSON.
#[derive(Clone, Debug)]
pub(super) struct Change {
    pub(super) id: u64,
    pub(super) service: Arc<str>,
}

#[derive(Debug)]
pub(super) struct Changes {
    services: Vec<ServiceView>,
    last_id: u64,
    kept: VecDeque<Change>,
    followers: broadcast::Sender<Change>,
}

impl Changes {
    /// The first number is derived from the time, so that the numbers of two runs can't be confused.
    pub(super) fn new() -> Self {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            services: Vec::new(),
            last_id: u64::try_from(now.as_millis()).unwrap_or_default(),
            kept: VecDeque::new(),
            followers: broadcast::Sender::new(KEPT),
        }
    }

    pub(super) fn services(&self) -> &[ServiceView] {
        &self.services
    }

    pub(super) fn last_id(&self) -> u64 {
        self.last_id
    }

    pub(super) fn has_followers(&self) -> bool {
        self.followers.receiver_count() > 0
    }

    /// Publishes the differences between the last state of all services and this one.
    pub(super) fn publish(&mut self, services: Vec<ServiceView>) {
        for service in &services {
            let before = self.services.iter().find(|it| it.name == service.name);
            if before == Some(service) {
                continue;
            }
            self.last_id += 1;
            let change = Change {
                id: self.last_id,
                // A view has only strings for keys, so it can always be serialized.
                service: serde_json::to_string(service).unwrap_or_default().into(),
            };
            if self.kept.len() == KEPT {
                self.kept.pop_front();
            }
            self.kept.push_back(change.clone());
            let _ = self.followers.send(change);
        }
        self.services = services;
    }

    /// Subscribes to future changes. Also returns those since `last_seen`, or `None` if some of them are
    /// no longer kept.
    pub(super) fn follow(
        &self,
        last_seen: Option<u64>,
    ) -> (Option<Vec<Change>>, broadcast::Receiver<Change>) {
        let oldest_seen = self.last_id - self.kept.len() as u64;
        let missed = last_seen
            .filter(|seen| (oldest_seen..=self.last_id).contains(seen))
            .map(|seen| {
                let missed = self.kept.iter().filter(|change| change.id > seen);
                missed.cloned().collect()
            });
        (missed, self.followers.subscribe())
    }
}
