//! The one table of all instances: the actors write it, everybody else reads or waits.

use std::time::SystemTime;

use tokio::sync::{broadcast, watch};

use crate::process::Condition;
use crate::status::{Events, State, Status};

const KEPT_EVENTS: usize = 1024;

#[derive(Debug)]
pub(crate) struct Board {
    rows: watch::Sender<Vec<Row>>,
    events: broadcast::Sender<Status>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) status: Status,
    /// Counts the times somebody asked for this instance to be run: at first and at each restart.
    pub(crate) epoch: u64,
    /// How the first attempt of this epoch ended: healthy, or the reason why not.
    pub(crate) outcome: Option<Result<(), String>>,
}

impl Board {
    pub(crate) fn new() -> Self {
        Self {
            rows: watch::Sender::new(Vec::new()),
            events: broadcast::Sender::new(KEPT_EVENTS),
        }
    }

    pub(crate) fn add(&self, status: Status) {
        let row = Row {
            status: status.clone(),
            epoch: 0,
            outcome: None,
        };
        self.rows.send_modify(|rows| rows.push(row));
        let _ = self.events.send(status);
    }

    pub(crate) fn remove(&self, instance: &str) {
        self.rows
            .send_modify(|rows| rows.retain(|row| row.status.instance != instance));
    }

    /// Changes one row; a new state or reason is an event.
    pub(crate) fn update(&self, instance: &str, change: impl FnOnce(&mut Row)) {
        self.rows.send_if_modified(|rows| {
            let Some(row) = rows.iter_mut().find(|row| row.status.instance == instance) else {
                return false;
            };
            let before = row.clone();
            change(row);
            let (new, old) = (&mut row.status, &before.status);
            if new.state != old.state {
                new.since = SystemTime::now();
            }
            if (&new.state, &new.reason) != (&old.state, &old.reason) {
                // Sent under the table's lock, so that events keep the order of the changes.
                let _ = self.events.send(new.clone());
            }
            *row != before
        });
    }

    pub(crate) fn statuses(&self) -> Vec<Status> {
        self.rows
            .borrow()
            .iter()
            .map(|row| row.status.clone())
            .collect()
    }

    pub(crate) fn events(&self) -> Events {
        Events(self.events.subscribe())
    }

    pub(crate) fn rows(&self) -> watch::Receiver<Vec<Row>> {
        self.rows.subscribe()
    }

    /// Waits until the first attempt of each of these epochs has ended.
    ///
    /// # Errors
    /// The first instance that did not get healthy, and the reason.
    pub(crate) async fn settled(&self, wanted: &[(String, u64)]) -> Result<(), (String, String)> {
        let mut rows = self.rows.subscribe();
        loop {
            let mut pending = false;
            for (instance, epoch) in wanted {
                let rows = rows.borrow_and_update();
                let row = rows.iter().find(|row| row.status.instance == *instance);
                match row.map(|row| (row.epoch.cmp(epoch), row.outcome.as_ref())) {
                    None => return Err((instance.clone(), "it was removed".to_owned())),
                    Some((std::cmp::Ordering::Less, _) | (_, None)) => pending = true,
                    Some((_, Some(Ok(())))) => {}
                    Some((_, Some(Err(reason)))) => return Err((instance.clone(), reason.clone())),
                }
            }
            if !pending || rows.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    /// Waits until these instances have stopped.
    pub(crate) async fn stopped(&self, instances: &[String]) {
        let mut rows = self.rows.subscribe();
        let done = |rows: &Vec<Row>| {
            rows.iter()
                .filter(|row| instances.contains(&row.status.instance))
                .all(|row| row.status.state == State::Stopped)
        };
        let _ = rows.wait_for(done).await;
    }
}

/// Whether `service` is as far as `condition` asks: every replica, and at least one.
pub(crate) fn satisfied(rows: &[Row], service: &str, condition: Condition) -> bool {
    let mut replicas = rows
        .iter()
        .filter(|row| row.status.service == service)
        .peekable();
    replicas.peek().is_some()
        && replicas.all(|row| match condition {
            Condition::Ready => row.status.is_ready(),
            Condition::Started => row.status.pid.is_some() || row.outcome.is_some(),
        })
}
