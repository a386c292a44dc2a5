//! The task of one instance: waits for the dependencies, runs the program, checks its health,
//! restarts it after a crash and stops it.

use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::backoff::Backoff;
use crate::child::{Child, Exit};
use crate::health::{HealthEvent, monitor};
use crate::log::{LogWriter, RecentLines, Stream, read_lines};
use crate::ports::{PortAllocator, Ports};
use crate::probe::Check;
use crate::service::ServiceSpec;
use crate::status::{InstanceState, InstanceStatus};
use crate::status_table::{Row, StartRequest, StatusTable, is_met};
use crate::text::rounded;

/// How long the output of a program that has ended may take to be read.
const LAST_LINES_TIMEOUT: Duration = Duration::from_millis(500);

/// What all instances of a stack share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) table: StatusTable,
    pub(crate) log: LogWriter,
    pub(crate) ports: PortAllocator,
    pub(crate) shim_executable: OsString,
    pub(crate) phase: watch::Sender<Phase>,
}

/// The phases of a stack, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd)]
pub(crate) enum Phase {
    Running,
    /// Instances are being stopped in reverse order.
    Stopping,
    /// The remaining instances are killed without waiting for them to exit.
    Killing,
    Stopped,
}

/// What an instance should be doing.
#[derive(Clone, Copy, Debug)]
struct Goal {
    run: bool,
    /// The number of requested restarts.
    generation: u64,
}

/// Controls the task of an instance. Dropping it ends the task and kills the program.
#[derive(Debug)]
pub(crate) struct InstanceHandle {
    /// The first field, because it must be dropped first: the task must not see `goal` closed.
    _task: AbortOnDropHandle<()>,
    pub(crate) service: Arc<ServiceSpec>,
    pub(crate) replica: u32,
    pub(crate) name: String,
    pub(crate) recent: Arc<RecentLines>,
    goal: watch::Sender<Goal>,
}

impl InstanceHandle {
    /// Starts the task. The instance must be in the table of `shared`.
    pub(crate) fn spawn(
        service: &Arc<ServiceSpec>,
        replica: u32,
        backoff: Backoff,
        keep_lines: usize,
        shared: Arc<Shared>,
    ) -> Self {
        let (goal, receiver) = watch::channel(Goal {
            run: true,
            generation: 0,
        });
        let name = service.instance_name(replica);
        let recent = Arc::new(RecentLines::new(keep_lines));
        let instance = Instance {
            service: service.clone(),
            replica,
            name: name.clone(),
            ports: Ports::new(&service.ports, replica),
            recent: recent.clone(),
            goal: receiver,
            backoff,
            shared,
        };
        Self {
            _task: AbortOnDropHandle::new(tokio::spawn(instance.run())),
            service: service.clone(),
            replica,
            name,
            recent,
            goal,
        }
    }

    /// The latest request to run.
    pub(crate) fn start_request(&self) -> StartRequest {
        StartRequest {
            instance: self.name.clone(),
            generation: self.goal.borrow().generation,
        }
    }

    /// Stops the program and starts it again. `None` if the instance was told to stop.
    pub(crate) fn restart(&self) -> Option<StartRequest> {
        let restarted = self.goal.send_if_modified(|goal| {
            goal.generation += u64::from(goal.run);
            goal.run
        });
        restarted.then(|| self.start_request())
    }

    /// Whether the instance was told to stop.
    pub(crate) fn is_stopping(&self) -> bool {
        !self.goal.borrow().run
    }

    /// Stops the program and ends the task. See [`StatusTable::wait_stopped`].
    pub(crate) fn stop(&self) {
        self.goal.send_modify(|goal| goal.run = false);
    }
}

/// The status of an instance before its task runs.
pub(crate) fn initial_status(service: &ServiceSpec, replica: u32) -> InstanceStatus {
    let ports = Ports::new(&service.ports, replica);
    let on: Vec<String> = service.after.iter().map(|d| d.service.clone()).collect();
    let named_ports = ports.named().into_iter();
    InstanceStatus {
        service: service.name.clone(),
        instance: service.instance_name(replica),
        replica,
        state: if on.is_empty() {
            InstanceState::Starting
        } else {
            InstanceState::Waiting { on }
        },
        reason: None,
        since: SystemTime::now(),
        pid: None,
        host: service.host,
        port: ports.main().filter(|&port| port != 0),
        named_ports: named_ports.filter(|&(_, port)| port != 0).collect(),
        restarts: 0,
    }
}

struct Instance {
    service: Arc<ServiceSpec>,
    replica: u32,
    name: String,
    ports: Ports,
    recent: Arc<RecentLines>,
    goal: watch::Receiver<Goal>,
    backoff: Backoff,
    shared: Arc<Shared>,
}

/// How one run of the program ended.
enum RunEnd {
    /// It was stopped because the goal has changed.
    Stopped(String),
    /// The one-time task has succeeded.
    Completed,
    /// The one-time task has failed.
    Failed(String),
    Crashed {
        reason: String,
        /// How long it had been healthy. `None` if it was not healthy when it crashed.
        healthy_for: Option<Duration>,
    },
}

/// A program that was started and the tasks that read its output.
struct Run {
    child: Child,
    check: Check,
    readers: [JoinHandle<()>; 2],
    started: Instant,
}

impl Instance {
    async fn run(mut self) {
        // Dependencies are only waited for before the first start.
        let mut dependencies_met = false;
        let mut last_exit = None;
        while let Some(generation) = self.wanted_generation() {
            self.update(|row| row.begin(generation));
            if !dependencies_met && !self.wait_for_dependencies().await {
                continue;
            }
            dependencies_met = true;
            self.enter(InstanceState::Starting, None);
            self.backoff.reset();
            last_exit = self.run_until_goal_changes().await;
        }
        self.enter(InstanceState::Stopped, last_exit);
    }

    /// The generation to run, or `None` to stop.
    fn wanted_generation(&mut self) -> Option<u64> {
        let goal = *self.goal.borrow_and_update();
        goal.run.then_some(goal.generation)
    }

    /// Waits until all dependencies are met. Returns false if the goal changed before.
    async fn wait_for_dependencies(&mut self) -> bool {
        let mut table = self.shared.table.subscribe();
        loop {
            let on: Vec<String> = {
                let rows = table.borrow_and_update();
                let unmet = self.service.after.iter().filter(|d| !is_met(d, &rows));
                unmet.map(|d| d.service.clone()).collect()
            };
            if on.is_empty() {
                return true;
            }
            self.enter(InstanceState::Waiting { on }, None);
            tokio::select! {
                _ = table.changed() => {}
                _ = self.goal.changed() => return false,
            }
        }
    }

    /// Runs the program, and again after each crash, until the goal changes. Returns how the last
    /// run ended.
    async fn run_until_goal_changes(&mut self) -> Option<String> {
        loop {
            let end = self.run_once().await;
            self.update(|row| row.status.pid = None);
            match end {
                RunEnd::Stopped(reason) => return Some(reason),
                RunEnd::Completed => {
                    self.enter(InstanceState::Completed, None);
                    let _ = self.goal.changed().await;
                    return None;
                }
                RunEnd::Failed(reason) => {
                    self.enter(InstanceState::Failed, Some(reason.clone()));
                    let _ = self.goal.changed().await;
                    return Some(reason);
                }
                RunEnd::Crashed {
                    reason,
                    healthy_for,
                } => {
                    if !self.back_off(&reason, healthy_for).await {
                        return Some(reason);
                    }
                }
            }
        }
    }

    /// Waits before the next start. Returns false if the goal changed before.
    async fn back_off(&mut self, reason: &str, healthy_for: Option<Duration>) -> bool {
        let (crashes, delay) = self.backoff.crashed(healthy_for);
        let state = match crashes {
            1 => InstanceState::Starting,
            crashes => InstanceState::CrashLooping { crashes },
        };
        self.update(|row| {
            row.record_start(Err(reason.to_owned()));
            let reason = format!("{reason}; restarting in {}", rounded(delay));
            row.enter(state, Some(reason));
        });
        tokio::select! {
            () = sleep(delay) => {
                self.update(|row| row.status.restarts += 1);
                true
            }
            _ = self.goal.changed() => false,
        }
    }

    /// Starts the program and waits until it ends or the goal changes.
    async fn run_once(&mut self) -> RunEnd {
        match self.start().await {
            Ok(run) => self.supervise(run).await,
            Err(reason) if self.service.probe().is_completed() => RunEnd::Failed(reason),
            Err(reason) => RunEnd::Crashed {
                reason,
                healthy_for: None,
            },
        }
    }

    async fn start(&mut self) -> Result<Run, String> {
        self.ports
            .allocate(&self.name, self.service.host, &self.shared.ports)?;
        let launch = self.service.launch(self.replica, &self.ports);
        let launch = launch.map_err(|error| error.to_string())?;

        let started = Instant::now();
        let (child, stdout, stderr) = Child::spawn(&self.shared.shim_executable, &launch).await?;
        let name: Arc<str> = self.name.as_str().into();
        let (recent, log) = (&self.recent, &self.shared.log);
        let readers = [
            tokio::spawn(read_lines(
                stdout,
                name.clone(),
                Stream::Stdout,
                recent.clone(),
                log.clone(),
            )),
            tokio::spawn(read_lines(
                stderr,
                name,
                Stream::Stderr,
                recent.clone(),
                log.clone(),
            )),
        ];
        self.update(|row| {
            row.status.pid = Some(child.pid());
            row.status.port = self.ports.main();
            row.status.named_ports = self.ports.named();
        });
        Ok(Run {
            child,
            check: launch.check,
            readers,
            started,
        })
    }

    /// Checks the health of a program until it ends, and stops it if the goal changes.
    async fn supervise(&mut self, mut run: Run) -> RunEnd {
        let probe = self.service.probe();
        let start_timeout = self.service.start_timeout;
        let mut goal = self.goal.clone();
        let mut healthy_since = None;
        let monitoring = monitor(
            probe.timing(),
            start_timeout,
            || run.check.run(),
            |event| healthy_since = self.report_health(event, run.started),
        );

        let exit = tokio::select! {
            exit = run.child.wait() => Some(exit),
            _ = goal.changed() => None,
            never = monitoring => match never {},
        };
        let stopped = exit.is_none();
        let exit = match exit {
            Some(exit) => exit,
            None => self.stop(&mut run.child).await,
        };
        // With a slow sink the readers finish later; the report of the end does not wait for them.
        let last_lines = async {
            for reader in run.readers {
                let _ = reader.await;
            }
        };
        let _ = timeout(LAST_LINES_TIMEOUT, last_lines).await;
        let reason = exit.to_string();
        if stopped {
            return RunEnd::Stopped(reason);
        }
        match exit {
            Exit::Code(0) if probe.is_completed() => RunEnd::Completed,
            _ if probe.is_completed() => RunEnd::Failed(reason),
            _ => RunEnd::Crashed {
                reason,
                healthy_for: healthy_since.map(|since: Instant| since.elapsed()),
            },
        }
    }

    /// Enters the state that a health event leads to. Returns since when the instance is healthy.
    fn report_health(&self, event: HealthEvent, started: Instant) -> Option<Instant> {
        match event {
            HealthEvent::Ready => {
                let reason = format!("after {}", rounded(started.elapsed()));
                self.enter(InstanceState::Healthy, Some(reason));
                Some(Instant::now())
            }
            HealthEvent::Recovered => {
                self.enter(InstanceState::Healthy, None);
                Some(Instant::now())
            }
            HealthEvent::StartTimeout(problem) => {
                let limit = rounded(self.service.start_timeout);
                let reason = format!("not healthy within {limit}: {problem}");
                self.enter(InstanceState::Unhealthy, Some(reason));
                None
            }
            HealthEvent::Unhealthy(problem) => {
                self.enter(InstanceState::Unhealthy, Some(problem));
                None
            }
        }
    }

    async fn stop(&self, child: &mut Child) -> Exit {
        self.enter(InstanceState::Stopping, None);
        let mut phase = self.shared.phase.subscribe();
        let forced = phase.wait_for(|phase| *phase >= Phase::Killing);
        child.stop(self.service.stop_grace, forced).await
    }

    fn enter(&self, state: InstanceState, reason: Option<String>) {
        self.update(|row| row.enter(state, reason));
    }

    fn update(&self, change: impl FnOnce(&mut Row)) {
        self.shared.table.update(&self.name, change);
    }
}
