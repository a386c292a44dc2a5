//! The task of one instance: waits for the dependencies, runs the program, checks its health,
//! restarts it after a crash and stops it.

use std::collections::HashMap;
use std::ffi::OsString;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::backoff::Backoff;
use crate::build::Build;
use crate::child::{Child, Exit};
use crate::health::{HealthEvent, monitor};
use crate::log::{LogStore, OutputStream, Stream};
use crate::ports::{PortAllocator, Ports};
use crate::probe::Check;
use crate::service::{Blocked, RestartRule, ServiceSpec};
use crate::status::{InstanceState, InstanceStatus};
use crate::status_table::{Row, StartRequest, StatusTable, is_met};
use crate::text::rounded;

/// How long to wait for the last output of a program that has ended.
const LAST_LINES_TIMEOUT: Duration = Duration::from_millis(500);

/// A program that ends sooner than this has failed at its start.
const SHORT_RUN: Duration = Duration::from_secs(5);

/// The state that all instances of a stack share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) table: StatusTable,
    pub(crate) log: LogStore,
    pub(crate) ports: PortAllocator,
    pub(crate) shim_executable: OsString,
    /// By service.
    pub(crate) builds: HashMap<String, Build>,
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

/// The desired state of an instance.
#[derive(Clone, Copy, Debug)]
struct Goal {
    run: bool,
    /// The number of requests to start after the first.
    generation: u64,
    /// Remove it once it has stopped.
    surplus: bool,
}

/// Controls the task of an instance. Dropping it ends the task and kills the program.
#[derive(Debug)]
pub(crate) struct InstanceHandle {
    /// The first field, because it must be dropped first: the task must not see `goal` closed.
    _task: AbortOnDropHandle<()>,
    pub(crate) service: Arc<ServiceSpec>,
    pub(crate) replica: u32,
    pub(crate) name: String,
    goal: watch::Sender<Goal>,
}

impl InstanceHandle {
    /// Starts the task. The instance must be in the table of `shared`. `run` says whether to start the
    /// program at once.
    pub(crate) fn spawn(
        service: &Arc<ServiceSpec>,
        replica: u32,
        run: bool,
        backoff: Backoff,
        shared: Arc<Shared>,
    ) -> Self {
        let (goal, receiver) = watch::channel(Goal {
            run,
            generation: 0,
            surplus: false,
        });
        let name = service.instance_name(replica);
        let instance = Instance {
            service: service.clone(),
            replica,
            name: name.clone(),
            ports: Ports::new(&service.ports, replica),
            goal: receiver,
            backoff,
            shared,
        };
        Self {
            _task: AbortOnDropHandle::new(tokio::spawn(instance.run())),
            service: service.clone(),
            replica,
            name,
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

    /// Stops the program if it runs, and starts it again.
    pub(crate) fn restart(&self) -> StartRequest {
        self.goal.send_modify(|goal| {
            goal.generation += 1;
            goal.run = true;
        });
        self.start_request()
    }

    /// Requests that the program runs. Has no effect if that is already requested.
    pub(crate) fn start(&self) -> StartRequest {
        self.goal.send_if_modified(|goal| {
            let is_stopped = !goal.run;
            goal.generation += u64::from(is_stopped);
            goal.run = true;
            is_stopped
        });
        self.start_request()
    }

    /// Whether the program should run.
    pub(crate) fn is_wanted(&self) -> bool {
        self.goal.borrow().run
    }

    /// Whether the instance will be removed once it has stopped.
    pub(crate) fn is_surplus(&self) -> bool {
        self.goal.borrow().surplus
    }

    /// Stops the program. See [`StatusTable::wait_stopped`].
    pub(crate) fn stop(&self) {
        self.goal.send_modify(|goal| goal.run = false);
    }

    /// Stops the program; the instance is removed afterwards.
    pub(crate) fn stop_surplus(&self) {
        self.goal.send_modify(|goal| {
            goal.run = false;
            goal.surplus = true;
        });
    }
}

/// The status of an instance before its task runs.
pub(crate) fn initial_status(service: &ServiceSpec, replica: u32, run: bool) -> InstanceStatus {
    let ports = Ports::new(&service.ports, replica);
    let on: Vec<String> = service.after.iter().map(|d| d.service.clone()).collect();
    let named_ports = ports.named().into_iter();
    InstanceStatus {
        service: service.name.clone(),
        instance: service.instance_name(replica),
        replica,
        state: if !run {
            InstanceState::Disabled
        } else if on.is_empty() {
            InstanceState::Starting
        } else {
            InstanceState::Waiting { on }
        },
        reason: None,
        advice: None,
        since: SystemTime::now(),
        started: None,
        exit: None,
        next_start: None,
        restart_delay: None,
        last_check: None,
        build_error: None,
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
    /// It has exited with code 0 and is not restarted.
    Ended(String),
    /// It has failed and is not restarted.
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
    /// Ends when the handle is dropped.
    async fn run(mut self) {
        // Dependencies are only waited for before the first start.
        let mut dependencies_met = false;
        let mut was_wanted = false;
        let mut last_exit = None;
        loop {
            let goal = *self.goal.borrow_and_update();
            if !goal.run {
                if was_wanted {
                    self.enter(InstanceState::Stopped, last_exit.take());
                }
                if self.goal.changed().await.is_err() {
                    return;
                }
                continue;
            }
            was_wanted = true;
            self.update(|row| row.begin(goal.generation));
            if !dependencies_met && !self.wait_for_dependencies().await {
                continue;
            }
            dependencies_met = true;
            self.enter(InstanceState::Starting, None);
            self.backoff.reset();
            last_exit = self.run_until_goal_changes().await;
        }
    }

    /// Waits until all dependencies are met. Returns false if the goal changed first.
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
        if let Some(Blocked { reason, advice }) = self.service.blocked.clone() {
            self.update(|row| {
                row.status.advice = Some(advice);
                row.enter(InstanceState::Failed, Some(reason));
            });
            let _ = self.goal.changed().await;
            return None;
        }
        let build = self.shared.builds.get(&self.service.name);
        if let Some(build) = build.filter(|build| !build.has_succeeded()) {
            self.enter(InstanceState::Building, None);
            let mut goal = self.goal.clone();
            let result = tokio::select! {
                result = build.ensure() => result,
                _ = goal.changed() => return None,
            };
            if let Err(problem) = result {
                self.enter(InstanceState::Failed, Some(problem.clone()));
                let _ = self.goal.changed().await;
                return Some(problem);
            }
            self.update(|row| row.status.build_error = None);
            self.enter(InstanceState::Starting, None);
        }
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
                RunEnd::Ended(reason) => {
                    self.enter(InstanceState::Stopped, Some(reason.clone()));
                    let _ = self.goal.changed().await;
                    return Some(reason);
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

    /// Waits before the next start. Returns false if the goal changed first.
    async fn back_off(&mut self, reason: &str, healthy_for: Option<Duration>) -> bool {
        let (crashes, delay) = self.backoff.crashed(healthy_for);
        let state = match crashes {
            1 => InstanceState::Starting,
            crashes => InstanceState::CrashLooping { crashes },
        };
        self.update(|row| {
            row.record_start(Err(reason.to_owned()));
            row.status.next_start = Some(SystemTime::now() + delay);
            row.status.restart_delay = Some(delay);
            row.enter(state, Some(reason.to_owned()));
        });
        let is_due = tokio::select! {
            () = sleep(delay) => true,
            _ = self.goal.changed() => false,
        };
        self.update(|row| {
            row.status.next_start = None;
            row.status.restart_delay = None;
            row.status.restarts += u32::from(is_due);
        });
        is_due
    }

    /// Starts the program and waits until it ends or the goal changes.
    async fn run_once(&mut self) -> RunEnd {
        if self.service.external.is_some() {
            return self.observe().await;
        }
        match self.start().await {
            Ok(run) => self.supervise(run).await,
            Err(reason)
                if self.service.probe().is_completed()
                    || self.service.restart == RestartRule::Never =>
            {
                RunEnd::Failed(reason)
            }
            Err(reason) => RunEnd::Crashed {
                reason,
                healthy_for: None,
            },
        }
    }

    /// Checks an external service until the goal changes.
    async fn observe(&mut self) -> RunEnd {
        let launch = match self.service.launch(self.replica, &self.ports) {
            Ok(launch) => launch,
            Err(error) => return RunEnd::Failed(error.to_string()),
        };
        let mut goal = self.goal.clone();
        let started = Instant::now();
        let monitoring = monitor(
            self.service.probe().timing(),
            self.service.start_timeout,
            || launch.check.run(),
            |event| {
                self.report_health(event, started);
            },
        );
        tokio::select! {
            _ = goal.changed() => RunEnd::Stopped("it is not checked any more".to_owned()),
            never = monitoring => match never {},
        }
    }

    async fn start(&mut self) -> Result<Run, String> {
        self.ports
            .allocate(&self.name, self.service.host, &self.shared.ports)?;
        let launch = self.service.launch(self.replica, &self.ports);
        let launch = launch.map_err(|error| error.to_string())?;

        let started = Instant::now();
        let (child, stdout, stderr) = Child::spawn(&self.shared.shim_executable, &launch).await?;
        let output = |stream| OutputStream {
            service: self.service.name.as_str().into(),
            instance: self.name.as_str().into(),
            stream,
            wanted: launch.check.log(),
        };
        let log = &self.shared.log;
        let readers = [
            tokio::spawn(output(Stream::Stdout).read(stdout, log.clone())),
            tokio::spawn(output(Stream::Stderr).read(stderr, log.clone())),
        ];
        self.update(|row| {
            row.status.pid = Some(child.pid());
            row.status.started = Some(SystemTime::now());
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
        // With a slow sink the readers finish later. The end is reported without waiting for them.
        let last_lines = async {
            for reader in run.readers {
                let _ = reader.await;
            }
        };
        let _ = timeout(LAST_LINES_TIMEOUT, last_lines).await;
        let reason = exit.to_string();
        self.update(|row| {
            row.status.exit = exit.status();
            row.status.last_check = None;
        });
        if stopped {
            return RunEnd::Stopped(reason);
        }
        // If a program ends soon after its start, its output probably explains why.
        let reason = match run.started.elapsed() {
            lasted if lasted < SHORT_RUN => format!("{reason} after {}", rounded(lasted)),
            _ => reason,
        };
        let succeeded = exit == Exit::Code(0);
        let is_restarted = match self.service.restart {
            RestartRule::Always => true,
            RestartRule::Crash => !succeeded,
            RestartRule::Never => false,
        };
        match (probe.is_completed(), is_restarted) {
            (true, _) if succeeded => RunEnd::Completed,
            (true, _) => RunEnd::Failed(reason),
            (false, false) if succeeded => RunEnd::Ended(reason),
            (false, false) => RunEnd::Failed(reason),
            (false, true) => RunEnd::Crashed {
                reason,
                healthy_for: healthy_since.map(|since: Instant| since.elapsed()),
            },
        }
    }

    /// Enters the state that a health event leads to. Returns when the instance became healthy.
    fn report_health(&self, event: HealthEvent, started: Instant) -> Option<Instant> {
        match event {
            HealthEvent::NotYet(problem) => {
                self.update(|row| row.status.last_check = Some(problem));
                None
            }
            HealthEvent::Ready => {
                self.update(|row| row.status.last_check = None);
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
        let signal = self.service.stop_signal.signal();
        child.stop(signal, self.service.stop_grace, forced).await
    }

    fn enter(&self, state: InstanceState, reason: Option<String>) {
        self.update(|row| row.enter(state, reason));
    }

    fn update(&self, change: impl FnOnce(&mut Row)) {
        self.shared.table.update(&self.name, change);
    }
}
