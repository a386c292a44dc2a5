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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn view(name: &str, restarts: usize) -> ServiceView {
        serde_json::from_value(json!({
            "name": name, "kind": "process", "state": "ready", "since": "", "ready": 1, "wanted": 1,
            "restarts": restarts, "after": [], "uses": [], "links": {}, "profiles": [],
            "instances": [],
        }))
        .unwrap()
    }

    /// The names of the services whose changes a client has missed; `None` if some are not kept.
    fn missed(changes: &Changes, last_seen: u64) -> Option<Vec<String>> {
        let (missed, _) = changes.follow(Some(last_seen));
        let name = |change: &Change| {
            let view: ServiceView = serde_json::from_str(&change.service).unwrap();
            view.name
        };
        missed.map(|missed| missed.iter().map(name).collect())
    }

    #[test]
    fn only_what_has_changed_is_published_and_numbered() {
        let mut changes = Changes::new();
        let first = changes.last_id();
        changes.publish(vec![view("web", 0), view("db", 0)]);
        assert_eq!(changes.last_id(), first + 2);
        assert!(!changes.has_followers());
        let (_, mut live) = changes.follow(None);
        assert!(changes.has_followers());
        changes.publish(vec![view("web", 0), view("db", 0)]);
        assert_eq!(changes.last_id(), first + 2);
        changes.publish(vec![view("web", 1), view("db", 0)]);
        assert_eq!(changes.last_id(), first + 3);
        assert_eq!(changes.services()[0].restarts, 1);
        let change = live.try_recv().unwrap();
        assert_eq!(change.id, first + 3);
        assert!(live.try_recv().is_err(), "there was one change");
        for (last_seen, expected) in [
            (first, Some(&["web", "db", "web"][..])),
            (first + 1, Some(&["db", "web"])),
            (first + 2, Some(&["web"])),
            (first + 3, Some(&[])),
            // Those of another run.
            (first + 4, None),
            (first - 1, None),
        ] {
            let expected = expected.map(|names| names.iter().map(ToString::to_string).collect());
            assert_eq!(
                missed(&changes, last_seen),
                expected,
                "{}",
                last_seen - first + 1
            );
        }
        assert!(changes.follow(None).0.is_none());
    }

    #[test]
    fn a_client_that_has_missed_too_many_changes_gets_none() {
        let mut changes = Changes::new();
        let first = changes.last_id();
        for restarts in 0..=KEPT {
            changes.publish(vec![view("web", restarts)]);
        }
        assert_eq!(missed(&changes, first), None);
        assert_eq!(missed(&changes, first + 1).unwrap().len(), KEPT);
    }
}
