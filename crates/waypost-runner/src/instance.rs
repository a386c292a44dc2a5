//! The actor of one instance: waits, starts, watches, restarts and ends it.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::attempt::{End, spell};
use crate::backoff::Backoff;
use crate::board::{Board, Row, satisfied};
use crate::log::{Kept, Output};
use crate::ports::{Given, Ports};
use crate::process::Process;
use crate::status::{State, Status};

/// What the instance should be doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// Run. A higher number than before means: start anew.
    Run(u64),
    Stop,
}

/// What all instances of a stack share.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) board: Arc<Board>,
    pub(crate) output: Output,
    pub(crate) given: Arc<Given>,
    pub(crate) supervisor: std::ffi::OsString,
    /// From now on, nobody gets any time to end.
    pub(crate) hurry: CancellationToken,
}

pub(crate) struct Instance {
    pub(crate) process: Arc<Process>,
    pub(crate) name: String,
    pub(crate) replica: u32,
    pub(crate) ports: Ports,
    pub(crate) goal: watch::Receiver<Goal>,
    pub(crate) backoff: Backoff,
    pub(crate) kept: Arc<Kept>,
    pub(crate) context: Context,
}

impl Instance {
    pub(crate) async fn run(mut self) {
        let mut waits = !self.process.after.is_empty();
        let mut farewell = None;
        while let Goal::Run(epoch) = self.next_goal() {
            self.update(|row| {
                row.status.restarts += u32::from(epoch > row.epoch);
                row.epoch = epoch;
                row.outcome = None;
            });
            if waits && !self.wait_for_others().await {
                continue;
            }
            waits = false;
            self.set(State::Starting, None);
            self.backoff.forgive();
            farewell = self.keep_running().await;
        }
        self.update(|row| {
            row.status.state = State::Stopped;
            row.status.reason = farewell;
            row.status.pid = None;
            row.outcome
                .get_or_insert(Err("it was stopped before it was healthy".to_owned()));
        });
    }

    /// Runs the process, again and again if it crashes, until the goal changes.
    /// Returns how it ended.
    async fn keep_running(&mut self) -> Option<String> {
        loop {
            let end = self.attempt().await;
            self.update(|row| row.status.pid = None);
            match end {
                End::Asked(reason) => return Some(reason),
                End::Completed => {
                    self.set(State::Completed, None);
                    let _ = self.goal.changed().await;
                    return None;
                }
                End::Failed(reason) => {
                    self.set(State::Failed, Some(reason.clone()));
                    let _ = self.goal.changed().await;
                    return Some(reason);
                }
                End::Crashed {
                    reason,
                    healthy_for,
                } => {
                    if self.back_off(&reason, healthy_for).await {
                        return Some(reason);
                    }
                }
            }
        }
    }

    /// Waits before the next start. True if the goal changed meanwhile.
    async fn back_off(&mut self, reason: &str, healthy_for: Option<Duration>) -> bool {
        let (crashes, wait) = self.backoff.crashed(healthy_for);
        let state = match crashes {
            1 => State::Starting,
            crashes => State::CrashLooping { crashes },
        };
        let again = format!("{reason}; starting again in {}", spell(wait));
        self.update(|row| {
            row.status.state = state;
            row.status.reason = Some(again);
            row.outcome.get_or_insert(Err(reason.to_owned()));
        });
        tokio::select! {
            () = sleep(wait) => {
                self.update(|row| row.status.restarts += 1);
                false
            }
            _ = self.goal.changed() => true,
        }
    }

    /// Waits for the processes that this one comes after. False if the goal changed meanwhile.
    async fn wait_for_others(&mut self) -> bool {
        let mut rows = self.context.board.rows();
        loop {
            let on: Vec<String> = {
                let rows = rows.borrow_and_update();
                let missing = self
                    .process
                    .after
                    .iter()
                    .filter(|other| !satisfied(&rows, &other.name, other.condition));
                missing.map(|other| other.name.clone()).collect()
            };
            if on.is_empty() {
                return true;
            }
            self.set(State::Waiting { on }, None);
            tokio::select! {
                _ = rows.changed() => {}
                _ = self.goal.changed() => return false,
            }
        }
    }

    fn next_goal(&mut self) -> Goal {
        *self.goal.borrow_and_update()
    }

    pub(crate) fn set(&self, state: State, reason: Option<String>) {
        self.update(|row| {
            match state {
                State::Completed => {
                    row.outcome.get_or_insert(Ok(()));
                }
                State::Failed => {
                    row.outcome
                        .get_or_insert(Err(reason.clone().unwrap_or_default()));
                }
                _ => {}
            }
            row.status.state = state;
            row.status.reason = reason;
        });
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Row)) {
        self.context.board.update(&self.name, change);
    }
}

/// What the board says of an instance before its actor does.
pub(crate) fn first_status(process: &Process, replica: u32) -> Status {
    let ports = Ports::new(&process.ports, replica);
    let on: Vec<String> = process
        .after
        .iter()
        .map(|other| other.name.clone())
        .collect();
    Status {
        service: process.name.clone(),
        instance: process.instance_name(replica),
        replica,
        state: if on.is_empty() {
            State::Starting
        } else {
            State::Waiting { on }
        },
        reason: None,
        since: SystemTime::now(),
        pid: None,
        host: process.host,
        port: ports.main().filter(|&port| port != 0),
        named_ports: ports
            .named()
            .into_iter()
            .filter(|(_, port)| *port != 0)
            .collect(),
        restarts: 0,
    }
}
