//! Starts the instances of a stack, and restarts, scales and stops them on request.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::time::timeout;

use crate::backoff::Backoff;
use crate::build::Build;
use crate::error::SupervisorError;
use crate::event_logger::EventLogger;
use crate::instance::{InstanceHandle, Phase, Shared, initial_status};
use crate::log::{Line, LogSink, LogStore, LogWriter, Stream, sanitize};
use crate::ports::{PortAllocator, Ports};
use crate::service::{ServiceSpec, VariableSource};
use crate::shim;
use crate::stack::Stack;
use crate::status::{Events, InstanceStatus};
use crate::status_table::{Row, StartRequest, StatusTable};
use crate::watch::Watcher;

/// The number of lines of output in an error.
const LINES_IN_ERROR: usize = 20;
/// How long the sink may take to write the remaining lines after the last program has ended.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// A stack that was started. Clones refer to the same stack.
///
/// When the last clone is dropped without [`shutdown`](Self::shutdown), every program is killed at
/// once.
///
/// ```no_run
/// use waypost_runner::{Console, ServiceSpec, Stack, Supervisor};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let web = ServiceSpec::new("web", "python3").args(["-m", "http.server", "{port}"]).port(8000);
/// let stack = Stack::builder().service(web).build()?;
/// let supervisor = Supervisor::start(stack, Console::stdout())?;
/// supervisor.ready().await?;
/// supervisor.scale("web", 3).await?;
/// for status in supervisor.statuses() {
///     println!("{}: {status}", status.instance);
/// }
/// supervisor.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Supervisor(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    stack: Stack,
    shared: Arc<Shared>,
    instances: Mutex<Instances>,
    /// Held while replicas are started and stopped by [`Supervisor::scale`].
    scaling: AsyncMutex<()>,
}

#[derive(Debug)]
struct Instances {
    handles: Vec<InstanceHandle>,
    /// Seeds the backoff of each instance.
    rng: fastrand::Rng,
    /// Taken by the shutdown.
    event_logger: Option<EventLogger>,
}

impl Supervisor {
    /// Starts every service as soon as its dependencies are ready, and sends all output to `sink`.
    /// Does not wait for the start; see [`ready`](Self::ready).
    ///
    /// `main` of the program must begin with [`shim::run_if_requested`].
    ///
    /// # Errors
    /// A port is in use, `main` does not call the shim, or the system can't start a thread. In these
    /// cases nothing was started.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn start(stack: Stack, sink: impl LogSink) -> Result<Self, SupervisorError> {
        if shim::was_bypassed() {
            return Err(SupervisorError::ShimNotCalled);
        }
        stack.check_ports()?;
        let shim_executable = match &stack.shim_executable {
            Some(path) => path.clone().into_os_string(),
            None => shim::this_executable().map_err(|source| SupervisorError::Io {
                action: "find this executable",
                source,
            })?,
        };
        let replicas: Vec<(Arc<ServiceSpec>, u32)> = stack
            .services
            .iter()
            .flat_map(|service| service.initial_replicas().map(|n| (service.clone(), n)))
            .collect();
        let names: Vec<String> = replicas
            .iter()
            .map(|(service, replica)| service.instance_name(*replica))
            .collect();
        let fixed_ports = stack.services.iter().flat_map(|service| &service.ports);
        let writer =
            LogWriter::start(sink, names.clone()).map_err(|source| SupervisorError::Io {
                action: "start the log thread",
                source,
            })?;
        let log = LogStore::new(writer, stack.keep_lines);
        let built = stack.services.iter().filter(|service| service.has_build());
        let builds = built.map(|service| {
            let build = Build::new(service.clone(), shim_executable.clone(), log.clone());
            (service.name.clone(), build)
        });
        let shared = Arc::new(Shared {
            builds: builds.collect(),
            table: StatusTable::new(),
            log,
            ports: PortAllocator::new(fixed_ports.map(|port| port.number)),
            shim_executable,
            phase: watch::Sender::new(Phase::Running),
        });
        let event_logger = EventLogger::start(shared.table.events(), names, shared.log.clone());
        let inner = Inner {
            instances: Mutex::new(Instances {
                handles: Vec::new(),
                rng: fastrand::Rng::with_seed(stack.seed),
                event_logger: Some(event_logger),
            }),
            scaling: AsyncMutex::new(()),
            stack,
            shared,
        };
        // All rows must exist before the first instance looks for its dependencies.
        for (service, replica) in &replicas {
            let status = initial_status(service, *replica, service.is_enabled);
            inner.shared.table.add(status);
        }
        for (service, replica) in &replicas {
            inner.spawn(&mut inner.lock(), service, *replica, service.is_enabled);
        }
        let inner = Arc::new(inner);
        for service in inner.stack.services.iter().filter(|it| it.watch.is_some()) {
            tokio::spawn(restart_on_change(Arc::downgrade(&inner), service.clone()));
        }
        Ok(Self(inner))
    }

    /// Waits until every instance that should run is healthy or has completed.
    ///
    /// # Errors
    /// [`SupervisorError::NotHealthy`] as soon as one has crashed or exceeded its start timeout.
    /// It is still restarted: the caller decides whether to continue without it.
    /// [`SupervisorError::ShuttingDown`] after a call of [`shutdown`](Self::shutdown).
    pub async fn ready(&self) -> Result<(), SupervisorError> {
        if !self.0.is_running() {
            return Err(SupervisorError::ShuttingDown);
        }
        let requests = self.0.start_requests();
        self.0.wait_ready(&requests).await
    }

    /// Waits until every instance that should run is healthy, has completed, has failed, or waits for one
    /// that has failed. Returns whether all are healthy or have completed.
    pub async fn settled(&self) -> bool {
        let is_wanted: Vec<String> = {
            let instances = self.0.lock();
            let wanted = instances.handles.iter().filter(|handle| handle.is_wanted());
            wanted.map(|handle| handle.name.clone()).collect()
        };
        self.0
            .shared
            .table
            .wait_settled(&is_wanted, self.specs())
            .await
    }

    /// The current status of every instance.
    pub fn statuses(&self) -> Vec<InstanceStatus> {
        self.0.shared.table.statuses()
    }

    /// Subscribes to every change of state from now on.
    ///
    /// ```no_run
    /// # async fn example(supervisor: waypost_runner::Supervisor) {
    /// let mut events = supervisor.events();
    /// while let Some(status) = events.next().await {
    ///     println!("{}: {status}", status.instance);
    /// }
    /// # }
    /// ```
    pub fn events(&self) -> Events {
        self.0.shared.table.events()
    }

    /// The last lines of all instances for which `accepts` returns true, at most `count`, oldest first,
    /// including the runner's own lines.
    pub fn last_lines(&self, accepts: impl Fn(&Line) -> bool, count: usize) -> Vec<Line> {
        self.0.shared.log.last(accepts, count)
    }

    /// The last lines written by an instance, at most `count`, oldest first.
    ///
    /// # Errors
    /// [`SupervisorError::UnknownService`] if there is no such instance.
    pub fn recent_lines(&self, instance: &str, count: usize) -> Result<Vec<Line>, SupervisorError> {
        let lines = self.0.recent_lines(instance, count);
        lines.ok_or_else(|| self.0.unknown(instance))
    }

    /// The variables that the first instance of a service is started with in addition to those of this
    /// process: name, value and source.
    ///
    /// # Errors
    /// There is no such service.
    pub fn environment(
        &self,
        service: &str,
    ) -> Result<Vec<(String, String, VariableSource)>, SupervisorError> {
        let services = &self.0.stack.services;
        let spec = services.iter().find(|known| known.name == service);
        let spec = spec.ok_or_else(|| self.0.unknown(service))?;
        // The specification was validated when the stack was built.
        let launch = spec.launch(1, &Ports::new(&spec.ports, 1));
        Ok(launch.map_or_else(|_| Vec::new(), |launch| spec.environment(&launch)))
    }

    /// Restarts an instance, or the instances of a service one after the other. Returns when they
    /// are healthy.
    ///
    /// # Errors
    /// There is no such service or instance, or one did not become healthy. The instances after that
    /// one are not restarted.
    pub async fn restart(&self, name: &str) -> Result<(), SupervisorError> {
        let instances = self.0.instances_of(name);
        if instances.is_empty() {
            return Err(self.0.unknown(name));
        }
        for instance in instances {
            let request = self.0.request(&instance, InstanceHandle::restart)?;
            self.0.wait_ready(&[request]).await?;
        }
        Ok(())
    }

    /// The working folder of a service.
    pub(crate) fn directory(&self, service: &str) -> Result<PathBuf, SupervisorError> {
        let spec = self.specs().iter().find(|known| known.name == service);
        let spec = spec.ok_or_else(|| self.0.unknown(service))?;
        Ok(spec.dir.clone().unwrap_or_else(|| PathBuf::from(".")))
    }

    /// Starts the instances of a service, or one instance, if they were stopped or are disabled. Returns
    /// when they are healthy.
    ///
    /// # Errors
    /// There is no such service or instance, the stack is shutting down, or one did not become healthy.
    pub async fn start_service(&self, name: &str) -> Result<(), SupervisorError> {
        let instances = self.0.instances_of(name);
        if instances.is_empty() {
            return Err(self.0.unknown(name));
        }
        let requests = instances
            .iter()
            .map(|it| self.0.request(it, InstanceHandle::start));
        let requests: Vec<_> = requests.collect::<Result<_, _>>()?;
        self.0.wait_ready(&requests).await
    }

    /// Stops the instances of a service, or one instance. Returns when they have exited. They stay
    /// stopped until [`start_service`](Self::start_service) or [`restart`](Self::restart).
    ///
    /// # Errors
    /// There is no such service or instance.
    pub async fn stop_service(&self, name: &str) -> Result<(), SupervisorError> {
        let is_meant = |handle: &InstanceHandle| handle.name == name || handle.service.name == name;
        let stopping = self.0.lock().tell(is_meant, InstanceHandle::stop);
        if stopping.is_empty() {
            return Err(self.0.unknown(name));
        }
        self.0.shared.table.wait_stopped(&stopping).await;
        Ok(())
    }

    /// # Errors
    /// There is no service or instance with this name.
    pub(crate) fn check_known(&self, name: &str) -> Result<(), SupervisorError> {
        if self.0.instances_of(name).is_empty() && !self.specs().iter().any(|it| it.name == name) {
            return Err(self.0.unknown(name));
        }
        Ok(())
    }

    /// The names of all services and instances.
    pub(crate) fn known_names(&self) -> Vec<String> {
        self.0.known_among(&self.0.lock())
    }

    pub(crate) fn specs(&self) -> &[Arc<ServiceSpec>] {
        &self.0.stack.services
    }

    pub(crate) fn log(&self) -> &LogStore {
        &self.0.shared.log
    }

    pub(crate) fn table_changes(&self) -> watch::Receiver<Vec<Row>> {
        self.0.shared.table.subscribe()
    }

    /// The services that depend on this one, directly or indirectly, in the order in which they start.
    pub fn dependents(&self, service: &str) -> Vec<String> {
        let mut all = vec![service.to_owned()];
        for wave in &self.0.stack.waves {
            for &index in wave {
                let spec = &self.0.stack.services[index];
                if spec.after.iter().any(|it| all.contains(&it.service)) {
                    all.push(spec.name.clone());
                }
            }
        }
        all.split_off(1)
    }

    /// Runs this number of replicas of a service. New replicas get free ports; the surplus ones with
    /// the highest numbers are stopped. Returns when the new ones are healthy and the surplus ones
    /// have exited. Calls run one after the other.
    ///
    /// # Errors
    /// There is no such service, the name of a new replica is in use, or a new replica did not
    /// become healthy.
    pub async fn scale(&self, service: &str, replicas: u32) -> Result<(), SupervisorError> {
        let inner = &self.0;
        let scaling = inner.scaling.lock().await;
        if inner.is_running() {
            // Left behind by a call whose future was dropped.
            let surplus = inner.surplus_instances(service);
            inner.remove(&surplus).await;
        }
        let (added, surplus) = inner.resize(service, replicas)?;
        inner.remove(&surplus).await;
        drop(scaling);
        inner.wait_ready(&added).await
    }

    /// Stops everything. A service is stopped only after all that depend on it have exited. The
    /// process group of each instance gets SIGTERM, and SIGKILL after the
    /// [`stop_grace`](crate::ServiceSpec::stop_grace) of its service. Returns when every program
    /// has exited and the sink has taken the last line.
    ///
    /// A second call during the shutdown kills everything at once. Dropping the future does not
    /// cancel the shutdown.
    pub async fn shutdown(&self) {
        let mut first_call = false;
        let phase = &self.0.shared.phase;
        phase.send_modify(|phase| match phase {
            Phase::Running => {
                first_call = true;
                *phase = Phase::Stopping;
            }
            Phase::Stopping => *phase = Phase::Killing,
            Phase::Killing | Phase::Stopped => {}
        });
        if first_call {
            tokio::spawn(stop_all(self.0.clone()));
        }
        let _ = phase
            .subscribe()
            .wait_for(|phase| *phase == Phase::Stopped)
            .await;
    }
}

/// Builds and restarts a service whenever its files change.
async fn restart_on_change(inner: Weak<Inner>, service: Arc<ServiceSpec>) {
    let Some(watch) = &service.watch else { return };
    let mut watcher = match Watcher::start(watch) {
        Ok(watcher) => watcher,
        Err(problem) => {
            if let Some(inner) = inner.upgrade() {
                inner.note(&service.name, problem).await;
            }
            return;
        }
    };
    while let Some(files) = watcher.next().await {
        let Some(inner) = inner.upgrade() else { return };
        inner.note(&service.name, changed(&files)).await;
        if let Some(build) = inner.shared.builds.get(&service.name) {
            let result = build.rebuild().await;
            inner.shared.table.update_service(&service.name, |row| {
                row.status.build_error = result.as_ref().err().cloned();
            });
            if result.is_err() {
                continue;
            }
        }
        let supervisor = Supervisor(inner);
        let mut services = vec![service.name.clone()];
        if watch.cascade {
            services.extend(supervisor.dependents(&service.name));
        }
        // Not waited for: the next change may come before the service is healthy.
        tokio::spawn(async move {
            for service in services {
                if supervisor.0.is_wanted(&service) {
                    let _ = supervisor.restart(&service).await;
                }
            }
        });
    }
}

/// `main.go changed`, or the number of changed files.
fn changed(files: &BTreeSet<PathBuf>) -> String {
    match files.first() {
        Some(file) if files.len() == 1 => format!("{} changed", file.display()),
        _ => format!("{} files changed", files.len()),
    }
}

/// Stops the waves of the stack, the last one first.
async fn stop_all(inner: Arc<Inner>) {
    for wave in inner.stack.waves.iter().rev() {
        let in_wave = |handle: &InstanceHandle| {
            let mut services = wave.iter().map(|&index| &inner.stack.services[index]);
            services.any(|service| Arc::ptr_eq(service, &handle.service))
        };
        let stopping = inner.lock().tell(in_wave, InstanceHandle::stop);
        inner.shared.table.wait_stopped(&stopping).await;
    }
    let event_logger = inner.lock().event_logger.take();
    let flush = async {
        if let Some(event_logger) = event_logger {
            event_logger.finish().await;
        }
        inner.shared.log.writer().flush().await;
    };
    // A sink that blocks must not delay the shutdown.
    let _ = timeout(FLUSH_TIMEOUT, flush).await;
    inner.shared.phase.send_replace(Phase::Stopped);
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Instances> {
        self.instances
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the task of a replica that is in the table.
    fn spawn(
        &self,
        instances: &mut Instances,
        service: &Arc<ServiceSpec>,
        replica: u32,
        run: bool,
    ) {
        let backoff = Backoff::new(instances.rng.u64(..));
        let shared = self.shared.clone();
        let handle = InstanceHandle::spawn(service, replica, run, backoff, shared);
        instances.handles.push(handle);
    }

    fn start_requests(&self) -> Vec<StartRequest> {
        let instances = self.lock();
        let wanted = instances.handles.iter().filter(|handle| handle.is_wanted());
        wanted.map(InstanceHandle::start_request).collect()
    }

    async fn wait_ready(&self, requests: &[StartRequest]) -> Result<(), SupervisorError> {
        let result = self.shared.table.wait_ready(requests).await;
        result.map_err(|(instance, reason)| {
            let lines = self.recent_lines(&instance, LINES_IN_ERROR);
            let lines = lines.unwrap_or_default();
            SupervisorError::NotHealthy {
                last_lines: lines
                    .iter()
                    .map(|line| sanitize(&line.text, false).into_owned())
                    .collect(),
                instance,
                reason,
            }
        })
    }

    fn recent_lines(&self, instance: &str, count: usize) -> Option<Vec<Line>> {
        let instances = self.lock();
        let handle = instances.handles.iter().find(|h| h.name == instance)?;
        Some(self.shared.log.last_of(&handle.name, count))
    }

    /// The instances of a service, or the instance with that name.
    fn instances_of(&self, name: &str) -> Vec<String> {
        let instances = self.lock();
        let matching = instances
            .handles
            .iter()
            .filter(|handle| handle.name == name || handle.service.name == name);
        matching.map(|handle| handle.name.clone()).collect()
    }

    /// The instances of a service that will be removed.
    fn surplus_instances(&self, service: &str) -> Vec<String> {
        let instances = self.lock();
        let surplus = instances
            .handles
            .iter()
            .filter(|handle| handle.service.name == service && handle.is_surplus());
        surplus.map(|handle| handle.name.clone()).collect()
    }

    /// Whether any instance of a service should run.
    fn is_wanted(&self, service: &str) -> bool {
        let instances = self.lock();
        let mut handles = instances.handles.iter();
        handles.any(|handle| handle.service.name == service && handle.is_wanted())
    }

    /// Writes a line of the runner to the output of a service.
    async fn note(&self, service: &str, text: String) {
        let line = Line {
            id: 0,
            service: service.into(),
            instance: service.into(),
            stream: Stream::Runner,
            at: SystemTime::now(),
            text: text.into(),
            truncated: false,
        };
        self.shared.log.add(vec![line]).await;
    }

    fn is_running(&self) -> bool {
        *self.shared.phase.borrow() == Phase::Running
    }

    /// Sends a request to an instance, unless the stack is shutting down.
    fn request(
        &self,
        instance: &str,
        request: impl FnOnce(&InstanceHandle) -> StartRequest,
    ) -> Result<StartRequest, SupervisorError> {
        let instances = self.lock();
        // Checked while the instances are locked, so that the shutdown misses none that is started.
        if !self.is_running() {
            return Err(SupervisorError::ShuttingDown);
        }
        let handle = instances.handles.iter().find(|h| h.name == instance);
        handle
            .map(request)
            .ok_or_else(|| self.unknown_among(&instances, instance))
    }

    /// Starts the missing replicas of a service and requests the surplus ones to stop. Returns the
    /// requests to start and the names of the instances that are stopping.
    fn resize(
        &self,
        service: &str,
        replicas: u32,
    ) -> Result<(Vec<StartRequest>, Vec<String>), SupervisorError> {
        let services = &self.stack.services;
        let found = services.iter().find(|known| known.name == service);
        let service = found.ok_or_else(|| self.unknown(service))?;
        let mut instances = self.lock();
        // Checked while the instances are locked, so that the shutdown misses none of the new ones.
        if !self.is_running() {
            return Err(SupervisorError::ShuttingDown);
        }
        let is_ours = |handle: &InstanceHandle| Arc::ptr_eq(&handle.service, service);
        let present: Vec<u32> = instances
            .handles
            .iter()
            .filter(|handle| is_ours(handle))
            .map(|handle| handle.replica)
            .collect();
        let missing: Vec<u32> = (1..=replicas).filter(|n| !present.contains(n)).collect();
        for &replica in &missing {
            let name = service.instance_name(replica);
            let is_service =
                |other: &Arc<ServiceSpec>| other.name == name && !Arc::ptr_eq(other, service);
            if services.iter().any(is_service) || instances.handles.iter().any(|h| h.name == name) {
                return Err(SupervisorError::NameTaken {
                    service: service.name.clone(),
                    name,
                });
            }
        }
        for &replica in &missing {
            let status = initial_status(service, replica, true);
            self.shared.table.add(status);
            self.spawn(&mut instances, service, replica, true);
        }
        let added = instances
            .handles
            .iter()
            .filter(|handle| is_ours(handle) && missing.contains(&handle.replica))
            .map(InstanceHandle::start_request)
            .collect();
        let is_surplus = |handle: &InstanceHandle| is_ours(handle) && handle.replica > replicas;
        let surplus = instances.tell(is_surplus, InstanceHandle::stop_surplus);
        Ok((added, surplus))
    }

    /// Waits until these instances have stopped, and removes them.
    async fn remove(&self, instances: &[String]) {
        self.shared.table.wait_stopped(instances).await;
        self.lock()
            .handles
            .retain(|handle| !instances.contains(&handle.name));
        for name in instances {
            self.shared.table.remove(name);
        }
    }

    fn unknown(&self, name: &str) -> SupervisorError {
        self.unknown_among(&self.lock(), name)
    }

    fn unknown_among(&self, instances: &Instances, name: &str) -> SupervisorError {
        SupervisorError::UnknownService {
            name: name.to_owned(),
            known: self.known_among(instances),
        }
    }

    fn known_among(&self, instances: &Instances) -> Vec<String> {
        let services = self.stack.services.iter().map(|service| &service.name);
        let handles = instances.handles.iter().map(|handle| &handle.name);
        let mut known: Vec<String> = services.chain(handles).cloned().collect();
        known.sort_unstable();
        known.dedup();
        known
    }
}

impl Instances {
    /// Sends a request to some instances, and returns their names.
    fn tell(
        &self,
        which: impl Fn(&InstanceHandle) -> bool,
        what: impl Fn(&InstanceHandle),
    ) -> Vec<String> {
        let selected = self.handles.iter().filter(|handle| which(handle));
        selected
            .map(|handle| {
                what(handle);
                handle.name.clone()
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_changed_file_is_named() {
        let files = |names: &[&str]| changed(&names.iter().map(PathBuf::from).collect());
        assert_eq!(files(&["src/main.go"]), "src/main.go changed");
        assert_eq!(files(&["a", "b"]), "2 files changed");
    }
}
