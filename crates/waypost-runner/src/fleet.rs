//! The instances of a running stack and what is done to them together.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::backoff::Backoff;
use crate::board::Board;
use crate::error::{StackError, list};
use crate::instance::{Context, Goal, Instance, first_status};
use crate::log::{Kept, Line, LogSink, Output, Stream, clean};
use crate::ports::{Given, Ports};
use crate::process::Process;
use crate::stack::Stack;
use crate::status::Events;

/// As many lines as a report of a failure shows.
const SHOWN_LINES: usize = 20;
/// How long the sink may take to write what is left when everything has ended.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Fleet {
    processes: Vec<Arc<Process>>,
    waves: Vec<Vec<usize>>,
    keep_lines: usize,
    pub(crate) context: Context,
    crew: Mutex<Crew>,
    /// Cancelled when the last process has ended: nothing more will be told.
    told: CancellationToken,
    /// Cancelled when the shutdown is done.
    pub(crate) ended: CancellationToken,
}

/// What changes while the stack runs.
#[derive(Debug)]
pub(crate) struct Crew {
    handles: Vec<Handle>,
    rng: fastrand::Rng,
    teller: Option<JoinHandle<()>>,
    closing: bool,
}

/// One instance, seen from above.
#[derive(Debug)]
pub(crate) struct Handle {
    /// Stands first because it must be dropped first: the actor must not see `goal` vanish.
    _actor: AbortOnDropHandle<()>,
    process: Arc<Process>,
    name: String,
    replica: u32,
    goal: watch::Sender<Goal>,
    kept: Arc<Kept>,
}

/// An instance and the run of it that is waited for.
pub(crate) type Epochs = Vec<(String, u64)>;

impl Fleet {
    pub(crate) fn start(stack: Stack, sink: Box<dyn LogSink>) -> Result<Arc<Self>, StackError> {
        let replicas = |process: &Arc<Process>| 1..=process.replicas.unwrap_or(1);
        let names = stack
            .processes
            .iter()
            .flat_map(|p| replicas(p).map(|n| p.instance_name(n)));
        let names: Vec<String> = names.collect();
        let fixed = stack
            .processes
            .iter()
            .flat_map(|process| &process.ports)
            .map(|port| port.number);
        let context = Context {
            board: Arc::new(Board::new()),
            given: Given::new(fixed),
            supervisor: stack.supervisor()?,
            hurry: CancellationToken::new(),
            output: Output::start(sink, names.clone()).map_err(|source| StackError::Io {
                what: "start the thread for logs",
                source,
            })?,
        };
        let told = CancellationToken::new();
        let events = context.board.events();
        let teller = tokio::spawn(tell(events, names, context.output.clone(), told.clone()));
        let crew = Crew {
            handles: Vec::new(),
            rng: fastrand::Rng::with_seed(stack.seed),
            teller: Some(teller),
            closing: false,
        };
        let fleet = Arc::new(Self {
            processes: stack.processes,
            waves: stack.waves,
            keep_lines: stack.keep_lines,
            context,
            crew: Mutex::new(crew),
            told,
            ended: CancellationToken::new(),
        });
        let everybody = || {
            fleet
                .processes
                .iter()
                .flat_map(|p| replicas(p).map(move |n| (p, n)))
        };
        // All are on the board before the first one looks who it has to wait for.
        everybody().for_each(|(process, replica)| fleet.enrol(process, replica));
        everybody()
            .for_each(|(process, replica)| fleet.launch(&mut fleet.lock(), process, replica));
        Ok(fleet)
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, Crew> {
        self.crew.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the given runs have become healthy.
    pub(crate) async fn settled(&self, epochs: &[(String, u64)]) -> Result<(), StackError> {
        self.context
            .board
            .settled(epochs)
            .await
            .map_err(|(instance, reason)| {
                let lines = self
                    .lock()
                    .recent_lines(&instance, SHOWN_LINES)
                    .unwrap_or_default();
                let last_lines = lines
                    .iter()
                    .map(|line| clean(&line.text, false).into_owned())
                    .collect();
                StackError::NotHealthy {
                    instance,
                    reason,
                    last_lines,
                }
            })
    }

    /// Starts the missing replicas of a process and stops the surplus ones.
    pub(crate) fn resize(
        &self,
        process: &str,
        replicas: u32,
    ) -> Result<(Epochs, Vec<String>), StackError> {
        let known = self
            .processes
            .iter()
            .find(|candidate| candidate.name == process);
        let process = known.ok_or_else(|| self.unknown(process))?;
        let mut crew = self.lock();
        if crew.closing {
            return Err(StackError::ShuttingDown);
        }
        let mine = |handle: &Handle| handle.process.name == process.name;
        let have: Vec<u32> = crew
            .handles
            .iter()
            .filter(|h| mine(h))
            .map(|h| h.replica)
            .collect();
        let missing: Vec<u32> = (1..=replicas)
            .filter(|replica| !have.contains(replica))
            .collect();
        for &replica in &missing {
            let name = process.instance_name(replica);
            if self
                .processes
                .iter()
                .any(|other| !Arc::ptr_eq(other, process) && other.name == name)
                || crew.handles.iter().any(|handle| handle.name == name)
            {
                return Err(StackError::NameTaken {
                    process: process.name.clone(),
                    name,
                });
            }
        }
        for &replica in &missing {
            self.enrol(process, replica);
            self.launch(&mut crew, process, replica);
        }
        let added = crew.epochs(|handle| mine(handle) && missing.contains(&handle.replica));
        Ok((
            added,
            crew.stop(|handle| mine(handle) && handle.replica > replicas),
        ))
    }

    /// Waits until these instances have ended, and forgets them.
    pub(crate) async fn dismiss(&self, instances: &[String]) {
        self.context.board.stopped(instances).await;
        self.lock()
            .handles
            .retain(|handle| !instances.contains(&handle.name));
        instances
            .iter()
            .for_each(|name| self.context.board.remove(name));
    }

    /// Ends a wave at a time, the last one first.
    pub(crate) async fn end_all(self: Arc<Self>) {
        for wave in self.waves.iter().rev() {
            let in_wave = |handle: &Handle| {
                wave.iter()
                    .any(|&index| Arc::ptr_eq(&self.processes[index], &handle.process))
            };
            let stopping = self.lock().stop(in_wave);
            self.context.board.stopped(&stopping).await;
        }
        self.told.cancel();
        let teller = self.lock().teller.take();
        let flushed = async {
            if let Some(teller) = teller {
                let _ = teller.await;
            }
            self.context.output.flush().await;
        };
        // A terminal that is stuck must not keep us.
        let _ = timeout(FLUSH_TIMEOUT, flushed).await;
        self.ended.cancel();
    }

    pub(crate) fn unknown(&self, name: &str) -> StackError {
        let crew = self.lock();
        let instances = crew.handles.iter().map(|handle| handle.name.as_str());
        let processes = self.processes.iter().map(|process| process.name.as_str());
        let mut known: Vec<&str> = processes.chain(instances).collect();
        known.sort_unstable();
        known.dedup();
        StackError::UnknownProcess {
            name: name.to_owned(),
            known: list(known),
        }
    }

    fn enrol(&self, process: &Process, replica: u32) {
        self.context.board.add(first_status(process, replica));
    }

    /// Starts the actor of a replica that is on the board.
    fn launch(&self, crew: &mut Crew, process: &Arc<Process>, replica: u32) {
        let name = process.instance_name(replica);
        let (goal, receiver) = watch::channel(Goal::Run(0));
        let kept = Arc::new(Kept::new(self.keep_lines));
        let instance = Instance {
            process: process.clone(),
            name: name.clone(),
            replica,
            ports: Ports::new(&process.ports, replica),
            goal: receiver,
            backoff: Backoff::new(crew.rng.u64(..)),
            kept: kept.clone(),
            context: self.context.clone(),
        };
        let _actor = AbortOnDropHandle::new(tokio::spawn(instance.run()));
        crew.handles.push(Handle {
            _actor,
            process: process.clone(),
            name,
            replica,
            goal,
            kept,
        });
    }
}

impl Crew {
    /// The current runs of some instances.
    pub(crate) fn epochs(&self, wanted: impl Fn(&Handle) -> bool) -> Epochs {
        let wanted = self.handles.iter().filter(|handle| wanted(handle));
        wanted
            .map(|handle| match *handle.goal.borrow() {
                Goal::Run(epoch) => (handle.name.clone(), epoch),
                Goal::Stop => (handle.name.clone(), 0),
            })
            .collect()
    }

    /// The instances of a process, or the one instance of that name.
    pub(crate) fn named(&self, name: &str) -> Vec<String> {
        let fits = |handle: &&Handle| handle.name == name || handle.process.name == name;
        self.handles
            .iter()
            .filter(fits)
            .map(|handle| handle.name.clone())
            .collect()
    }

    pub(crate) fn recent_lines(&self, instance: &str, count: usize) -> Option<Vec<Line>> {
        let handle = self.handles.iter().find(|handle| handle.name == instance)?;
        Some(handle.kept.last(count))
    }

    /// Has an instance end and start again. Returns the number of the new run.
    pub(crate) fn start_anew(&self, instance: &str) -> Result<u64, StackError> {
        let mut epoch = None;
        if let Some(handle) = self.handles.iter().find(|handle| handle.name == instance) {
            handle.goal.send_if_modified(|goal| match goal {
                Goal::Run(current) => {
                    *current += 1;
                    epoch = Some(*current);
                    true
                }
                Goal::Stop => false,
            });
        }
        epoch.ok_or(StackError::ShuttingDown)
    }

    /// True the first time.
    pub(crate) fn close(&mut self) -> bool {
        !std::mem::replace(&mut self.closing, true)
    }

    fn stop(&self, surplus: impl Fn(&Handle) -> bool) -> Vec<String> {
        let handles: Vec<_> = self
            .handles
            .iter()
            .filter(|handle| surplus(handle))
            .collect();
        for handle in &handles {
            handle.goal.send_replace(Goal::Stop);
        }
        handles
            .into_iter()
            .map(|handle| handle.name.clone())
            .collect()
    }
}

/// Writes every change of state into the log, among the lines of its instance.
async fn tell(mut events: Events, mut names: Vec<String>, output: Output, told: CancellationToken) {
    loop {
        let status = tokio::select! {
            // What has happened is told before the end is noticed.
            biased;
            status = events.next() => status,
            () = told.cancelled() => None,
        };
        let Some(status) = status else { return };
        let text = status.to_string().into();
        let (instance, at) = (status.instance.as_str().into(), SystemTime::now());
        if !names.contains(&status.instance) {
            names.push(status.instance);
            output.names(names.clone()).await;
        }
        output
            .lines(vec![Line {
                instance,
                stream: Stream::Runner,
                at,
                text,
                cut: false,
            }])
            .await;
    }
}
