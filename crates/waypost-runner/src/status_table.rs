//! The status of every instance, in one table: each instance writes its own row, and the supervisor
//! reads them and waits for changes.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::{broadcast, watch};

use crate::service::{Condition, Dependency, ServiceSpec};
use crate::status::{Events, InstanceState, InstanceStatus};

/// How many events a subscriber may fall behind before it misses some.
const EVENT_CAPACITY: usize = 1024;

#[derive(Debug)]
pub(crate) struct StatusTable {
    rows: watch::Sender<Vec<Row>>,
    events: broadcast::Sender<InstanceStatus>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Row {
    pub(crate) status: InstanceStatus,
    /// The latest request to run that the instance acts on; see [`StartRequest`].
    generation: u64,
    /// The result of the first attempt to start for this request: healthy, or the reason why not.
    start_result: Option<Result<(), String>>,
}

/// A request that an instance run: its first start is generation 0, each requested restart adds 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StartRequest {
    pub(crate) instance: String,
    pub(crate) generation: u64,
}

impl StatusTable {
    pub(crate) fn new() -> Self {
        Self {
            rows: watch::Sender::new(Vec::new()),
            events: broadcast::Sender::new(EVENT_CAPACITY),
        }
    }

    pub(crate) fn add(&self, status: InstanceStatus) {
        let row = Row {
            status: status.clone(),
            generation: 0,
            start_result: None,
        };
        self.rows.send_modify(|rows| rows.push(row));
        let _ = self.events.send(status);
    }

    pub(crate) fn remove(&self, instance: &str) {
        self.rows
            .send_modify(|rows| rows.retain(|row| row.status.instance != instance));
    }

    /// Changes one row. A new state or reason is published as an event.
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
                // Sent while the table is locked, so that events are in the order of the changes.
                let _ = self.events.send(new.clone());
            }
            *row != before
        });
    }

    /// Changes the rows of all instances of a service.
    pub(crate) fn update_service(&self, service: &str, change: impl Fn(&mut Row)) {
        self.rows.send_modify(|rows| {
            let mine = rows.iter_mut().filter(|row| row.status.service == service);
            mine.for_each(change);
        });
    }

    pub(crate) fn statuses(&self) -> Vec<InstanceStatus> {
        self.rows
            .borrow()
            .iter()
            .map(|row| row.status.clone())
            .collect()
    }

    pub(crate) fn events(&self) -> Events {
        Events(self.events.subscribe())
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<Vec<Row>> {
        self.rows.subscribe()
    }

    /// Waits until the first attempt of each request has succeeded or one has failed.
    ///
    /// # Errors
    /// The first instance that did not become healthy, and the reason.
    pub(crate) async fn wait_ready(
        &self,
        requests: &[StartRequest],
    ) -> Result<(), (String, String)> {
        let mut table = self.rows.subscribe();
        loop {
            let mut pending = false;
            for StartRequest {
                instance,
                generation,
            } in requests
            {
                let rows = table.borrow_and_update();
                let Some(row) = rows.iter().find(|row| row.status.instance == *instance) else {
                    return Err((instance.clone(), "it was removed".to_owned()));
                };
                match &row.start_result {
                    Some(Err(reason)) if row.generation >= *generation => {
                        return Err((instance.clone(), reason.clone()));
                    }
                    Some(Ok(())) if row.generation >= *generation => {}
                    _ => pending = true,
                }
            }
            if !pending || table.changed().await.is_err() {
                return Ok(());
            }
        }
    }

    /// Waits until each of these instances has been ready once or has failed, or waits for one that
    /// isn't ready. Returns whether all are ready.
    pub(crate) async fn wait_settled(
        &self,
        instances: &[String],
        services: &[Arc<ServiceSpec>],
    ) -> bool {
        let mut table = self.rows.subscribe();
        let is_ours = |row: &&Row| instances.contains(&row.status.instance);
        let can_start = |row: &Row, rows: &[Row]| {
            let service = services.iter().find(|it| it.name == row.status.service);
            service.is_none_or(|service| service.after.iter().all(|it| is_met(it, rows)))
        };
        let settled = table.wait_for(|rows| {
            rows.iter()
                .filter(is_ours)
                .all(|row| match row.status.state {
                    InstanceState::Waiting { .. } => !can_start(row, rows),
                    _ => row.start_result.is_some(),
                })
        });
        match settled.await {
            Ok(rows) => rows.iter().filter(is_ours).all(|row| row.status.is_ready()),
            Err(_) => false,
        }
    }

    /// Waits until these instances have stopped.
    pub(crate) async fn wait_stopped(&self, instances: &[String]) {
        let mut table = self.rows.subscribe();
        let all_stopped = |rows: &Vec<Row>| {
            rows.iter()
                .filter(|row| instances.contains(&row.status.instance))
                .all(|row| {
                    let state = &row.status.state;
                    matches!(state, InstanceState::Stopped | InstanceState::Disabled)
                })
        };
        let _ = table.wait_for(all_stopped).await;
    }
}

impl Row {
    /// Begins to act on a request to run.
    pub(crate) fn begin(&mut self, generation: u64) {
        self.status.advice = None;
        self.status.restarts += u32::from(generation > self.generation);
        self.generation = generation;
        self.start_result = None;
    }

    /// Enters a state. States that decide whether the start succeeded are also recorded as its
    /// result.
    pub(crate) fn enter(&mut self, state: InstanceState, reason: Option<String>) {
        match &state {
            InstanceState::Healthy | InstanceState::Completed => self.record_start(Ok(())),
            InstanceState::Unhealthy | InstanceState::Failed => {
                self.record_start(Err(reason.clone().unwrap_or_default()));
            }
            InstanceState::Stopped => {
                self.record_start(Err("stopped before it became healthy".to_owned()));
            }
            InstanceState::Disabled
            | InstanceState::Waiting { .. }
            | InstanceState::Building
            | InstanceState::Starting
            | InstanceState::CrashLooping { .. }
            | InstanceState::Stopping => {}
        }
        self.status.state = state;
        self.status.reason = reason;
    }

    /// Records the result of a start, unless an earlier attempt for the same request has one.
    pub(crate) fn record_start(&mut self, result: Result<(), String>) {
        self.start_result.get_or_insert(result);
    }
}

/// Whether the service that is depended on has instances, and all of them meet the condition.
pub(crate) fn is_met(dependency: &Dependency, rows: &[Row]) -> bool {
    let mut instances = rows
        .iter()
        .filter(|row| row.status.service == dependency.service)
        .peekable();
    instances.peek().is_some()
        && instances.all(|row| match dependency.condition {
            // It wasn't started with the stack.
            _ if row.status.state == InstanceState::Disabled => true,
            Condition::Ready => row.status.is_ready(),
            Condition::Started => row.status.pid.is_some() || row.start_result.is_some(),
        })
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::instance::initial_status;

    fn web() -> ServiceSpec {
        ServiceSpec::new("web", "web")
    }

    /// A table with one instance of `web` that has begun to act on a request.
    fn table(generation: u64) -> StatusTable {
        let table = StatusTable::new();
        table.add(initial_status(&web(), 1, true));
        table.update("web", |row| row.begin(generation));
        table
    }

    fn enter(table: &StatusTable, state: InstanceState, reason: &str) {
        table.update("web", |row| row.enter(state, Some(reason.to_owned())));
    }

    /// The result for a request, if there is one already.
    fn ready(table: &StatusTable, generation: u64) -> Option<Result<(), String>> {
        let request = StartRequest {
            instance: "web".to_owned(),
            generation,
        };
        let result = table.wait_ready(&[request]).now_or_never()?;
        Some(result.map_err(|(instance, reason)| format!("{instance}: {reason}")))
    }

    #[test]
    fn a_request_has_the_result_of_its_own_first_attempt() {
        let table = table(0);
        assert_eq!(ready(&table, 0), None);
        enter(&table, InstanceState::Failed, "exited with code 1");
        let failed = || Some(Err("web: exited with code 1".to_owned()));
        assert_eq!(ready(&table, 0), failed());
        // The result of an earlier request says nothing about this one.
        assert_eq!(ready(&table, 1), None);
        // Only the first attempt counts.
        enter(&table, InstanceState::Healthy, "after 3 ms");
        assert_eq!(ready(&table, 0), failed());

        table.update("web", |row| row.begin(1));
        assert_eq!(ready(&table, 1), None);
        enter(&table, InstanceState::Healthy, "after 3 ms");
        assert_eq!(ready(&table, 1), Some(Ok(())));
        // A later request includes the earlier ones.
        assert_eq!(ready(&table, 0), Some(Ok(())));
        assert_eq!(ready(&table, 2), None);
        table.remove("web");
        let removed = Some(Err("web: it was removed".to_owned()));
        assert_eq!(ready(&table, 1), removed);
    }

    #[test]
    fn a_state_in_which_the_program_does_not_run_ends_the_start() {
        let stopped = "web: stopped before it became healthy";
        for (state, result) in [
            (InstanceState::Healthy, Some(Ok(()))),
            (InstanceState::Completed, Some(Ok(()))),
            (InstanceState::Unhealthy, Some(Err("web: why"))),
            (InstanceState::Failed, Some(Err("web: why"))),
            (InstanceState::Stopped, Some(Err(stopped))),
            (InstanceState::Starting, None),
            (InstanceState::Building, None),
            (InstanceState::Stopping, None),
            (InstanceState::CrashLooping { crashes: 2 }, None),
        ] {
            let table = table(0);
            enter(&table, state.clone(), "why");
            let result = result.map(|result| result.map_err(str::to_owned));
            assert_eq!(ready(&table, 0), result, "{state:?}");
        }
    }

    #[test]
    fn restarts_count_requests_and_not_the_first_start() {
        let table = table(0);
        let restarts = || table.statuses()[0].restarts;
        table.update("web", |row| row.begin(0));
        assert_eq!(restarts(), 0);
        table.update("web", |row| row.begin(1));
        assert_eq!(restarts(), 1);
    }

    #[test]
    fn an_event_is_sent_for_a_new_state_or_reason_only() {
        let table = table(0);
        let mut events = table.events();
        enter(&table, InstanceState::Failed, "exited with code 1");
        enter(&table, InstanceState::Failed, "exited with code 1");
        enter(&table, InstanceState::Failed, "exited with code 2");
        table.update("web", |row| row.status.pid = Some(7));
        let mut reasons = Vec::new();
        while let Some(event) = events.next().now_or_never() {
            reasons.extend(event.unwrap().reason);
        }
        assert_eq!(reasons, ["exited with code 1", "exited with code 2"]);
    }

    #[test]
    fn a_dependency_is_met_by_all_instances_of_its_service() {
        let web = web().replicas(2);
        let rows = |states: [InstanceState; 2], pid: Option<u32>| -> Vec<Row> {
            let table = StatusTable::new();
            for (replica, state) in (1..).zip(states) {
                table.add(initial_status(&web, replica, true));
                let name = web.instance_name(replica);
                table.update(&name, |row| {
                    row.enter(state, None);
                    row.status.pid = pid;
                });
            }
            table.rows.borrow().clone()
        };
        use InstanceState::{Building, Disabled, Failed, Healthy, Starting};
        for (states, pid, ready, started) in [
            ([Healthy, Healthy], Some(7), true, true),
            ([Healthy, Starting], Some(7), false, true),
            ([Healthy, Building], None, false, false),
            // It was started, though it did not become ready.
            ([Healthy, Failed], None, false, true),
            ([Healthy, Disabled], None, true, true),
            ([Disabled, Disabled], None, true, true),
        ] {
            let rows = rows(states.clone(), pid);
            for (condition, expected) in [(Condition::Ready, ready), (Condition::Started, started)]
            {
                let service = "web".to_owned();
                let dependency = Dependency { service, condition };
                assert_eq!(
                    is_met(&dependency, &rows),
                    expected,
                    "{states:?} {condition:?}"
                );
                assert!(!is_met(&dependency, &[]), "there is no instance yet");
            }
        }
    }
}
