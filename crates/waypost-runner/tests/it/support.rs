//! Helpers of the tests: services that run the testbed's programs, a sink that records, and waiting
//! with a deadline.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal};
use waypost_runner::{
    InstanceStatus, Line, LogSink, Probe, ServiceSpec, Stack, StackBuilder, Stream, Supervisor,
    SupervisorError,
};

/// The time limit for any event that a test expects.
const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) const TESTBED: &str = env!("CARGO_BIN_EXE_runner-testbed");

pub(crate) fn stack(services: impl IntoIterator<Item = ServiceSpec>) -> StackBuilder {
    let builder = Stack::builder().shim_executable(TESTBED);
    services.into_iter().fold(builder, StackBuilder::service)
}

/// A service that runs a shell script.
pub(crate) fn shell(name: &str, script: &str) -> ServiceSpec {
    ServiceSpec::new(name, "sh").args(["-c", script])
}

/// A service that exits some time after SIGTERM, after a last line on both streams.
pub(crate) fn graceful(name: &str, millis: u64) -> ServiceSpec {
    ServiceSpec::new(name, TESTBED).args(["graceful".to_owned(), millis.to_string()])
}

/// An HTTP service that is healthy unless there is a file `unhealthy` in `dir`.
pub(crate) fn service(name: &str, dir: &std::path::Path) -> ServiceSpec {
    ServiceSpec::new(name, TESTBED)
        .args(["serve", "{port}", &dir.display().to_string()])
        .port(0)
        .ready(Probe::http("/health").interval(Duration::from_millis(50)))
}

/// Starts a stack and records its output.
pub(crate) fn start(builder: StackBuilder) -> (Supervisor, Recorder) {
    try_start(builder).unwrap()
}

pub(crate) fn try_start(builder: StackBuilder) -> Result<(Supervisor, Recorder), SupervisorError> {
    let recorder = Recorder::default();
    let supervisor = Supervisor::start(builder.build().unwrap(), recorder.clone())?;
    Ok((supervisor, recorder))
}

/// A sink that records all lines.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorder(Arc<Mutex<Recorded>>);

#[derive(Debug, Default)]
struct Recorded {
    /// The first lines of each instance, each with the time when the sink got it.
    lines: HashMap<Arc<str>, Vec<(SystemTime, Line)>>,
    events: Vec<String>,
}

/// How many lines are recorded of each instance; more than any test needs.
const RECORDED: usize = 20_000;

impl LogSink for Recorder {
    fn write(&mut self, lines: &[Line]) -> io::Result<()> {
        let now = SystemTime::now();
        let mut recorded = self.0.lock().unwrap();
        for line in lines {
            if line.stream == Stream::Runner {
                recorded
                    .events
                    .push(format!("{}: {}", line.instance, line.text));
                continue;
            }
            let lines = recorded.lines.entry(line.instance.clone()).or_default();
            if lines.len() < RECORDED {
                lines.push((now, line.clone()));
            }
        }
        Ok(())
    }
}

impl Recorder {
    /// The output of an instance, each line with the time when the sink got it.
    pub(crate) fn lines(&self, instance: &str) -> Vec<(SystemTime, Line)> {
        self.0
            .lock()
            .unwrap()
            .lines
            .get(instance)
            .cloned()
            .unwrap_or_default()
    }

    pub(crate) fn texts(&self, instance: &str) -> Vec<String> {
        self.lines(instance)
            .into_iter()
            .map(|(_, line)| line.text.to_string())
            .collect()
    }

    /// The runner's own lines, as `instance: text`.
    pub(crate) fn events(&self) -> Vec<String> {
        self.0.lock().unwrap().events.clone()
    }
}

/// Waits until each of these instances has written `ready`.
pub(crate) async fn wait_until_ready(log: &Recorder, names: &[&str]) {
    for name in names {
        let ready = || log.texts(name).contains(&"ready".to_owned()).then_some(());
        eventually("it is ready", ready).await;
    }
}

/// The status of one instance.
pub(crate) fn status(supervisor: &Supervisor, instance: &str) -> InstanceStatus {
    let all = supervisor.statuses();
    all.iter()
        .find(|status| status.instance == instance)
        .unwrap_or_else(|| panic!("{all:?}"))
        .clone()
}

/// Waits for a condition, which is checked every 5 ms, up to the deadline.
pub(crate) async fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(found) = check() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let found = tokio::time::timeout(DEADLINE, waiting).await;
    found.unwrap_or_else(|_| panic!("timed out after {DEADLINE:?}: {what}"))
}

/// The process id that a script has written to a file.
pub(crate) fn pid_in(file: &std::path::Path) -> Option<u32> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

pub(crate) fn kill_9(pid: u32) {
    send_signal(pid, Signal::KILL);
}

/// Sends a signal to a process, which may have ended in the meantime.
pub(crate) fn send_signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    match rustix::process::kill_process(pid, signal) {
        Ok(()) | Err(rustix::io::Errno::SRCH) => {}
        Err(error) => panic!("{error}"),
    }
}

/// Whether a process runs. A zombie does not count.
pub(crate) fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| {
        !stat
            .rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with(['Z', 'X']))
    })
}
