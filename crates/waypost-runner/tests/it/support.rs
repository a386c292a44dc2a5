//! What the tests share: a testbed of programs, a sink that remembers, and patience with an end.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use rustix::process::{Pid, Signal};
use waypost_runner::{
    Line, LogSink, Process, Running, Stack, StackBuilder, StackError, Status, Stream,
};

/// No single thing that a test waits for takes this long.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) const TESTBED: &str = env!("CARGO_BIN_EXE_runner-testbed");

pub(crate) fn stack(processes: impl IntoIterator<Item = Process>) -> StackBuilder {
    let builder = Stack::builder().supervisor(TESTBED);
    processes.into_iter().fold(builder, StackBuilder::process)
}

/// A process that runs a shell script.
pub(crate) fn shell(name: &str, script: &str) -> Process {
    Process::new(name, "sh").args(["-c", script])
}

/// A process that ends some time after SIGTERM, with a word.
pub(crate) fn polite(name: &str, millis: u64) -> Process {
    Process::new(name, TESTBED).args(["polite".to_owned(), millis.to_string()])
}

/// The testbed's service, healthy unless there is a file `sick` in `dir`.
pub(crate) fn service(name: &str, dir: &std::path::Path) -> Process {
    Process::new(name, TESTBED)
        .args(["serve", "{port}", &dir.display().to_string()])
        .port(0)
        .ready(waypost_runner::Probe::http("/health").interval(Duration::from_millis(50)))
}

/// A started stack and what was written.
pub(crate) fn start(builder: StackBuilder) -> (Running, Recorder) {
    try_start(builder).unwrap()
}

pub(crate) fn try_start(builder: StackBuilder) -> Result<(Running, Recorder), StackError> {
    let recorder = Recorder::default();
    let running = builder.build().unwrap().start(recorder.clone())?;
    Ok((running, recorder))
}

/// A sink that remembers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorder(Arc<Mutex<Recorded>>);

#[derive(Debug, Default)]
struct Recorded {
    /// The lines of each instance, with the time of their arrival. Of a flood, the beginning.
    lines: HashMap<Arc<str>, Vec<(SystemTime, Line)>>,
    told: Vec<String>,
}

/// More than any test looks at.
const REMEMBERED: usize = 20_000;

impl LogSink for Recorder {
    fn write(&mut self, lines: &[Line]) -> io::Result<()> {
        let now = SystemTime::now();
        let mut recorded = self.0.lock().unwrap();
        for line in lines {
            if line.stream == Stream::Runner {
                recorded
                    .told
                    .push(format!("{}: {}", line.instance, line.text));
                continue;
            }
            let lines = recorded.lines.entry(line.instance.clone()).or_default();
            if lines.len() < REMEMBERED {
                lines.push((now, line.clone()));
            }
        }
        Ok(())
    }
}

impl Recorder {
    /// What an instance wrote, with the time of its arrival.
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

    /// `instance: what the runner told of it`, in order.
    pub(crate) fn told(&self) -> Vec<String> {
        self.0.lock().unwrap().told.clone()
    }
}

/// Waits until these processes have said that they are ready.
pub(crate) async fn say_ready(log: &Recorder, names: &[&str]) {
    for name in names {
        let ready = || log.texts(name).contains(&"ready".to_owned()).then_some(());
        eventually("it is ready", ready).await;
    }
}

/// The status of one instance.
pub(crate) fn status(running: &Running, instance: &str) -> Status {
    let all = running.status();
    all.iter()
        .find(|status| status.instance == instance)
        .unwrap_or_else(|| panic!("{all:?}"))
        .clone()
}

/// Waits for a condition, a few milliseconds at a time, but not for ever.
pub(crate) async fn eventually<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let waiting = async {
        loop {
            if let Some(found) = check() {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let found = tokio::time::timeout(PATIENCE, waiting).await;
    found.unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

/// A process id that a script has written into a file.
pub(crate) fn pid_in(file: &std::path::Path) -> Option<u32> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

pub(crate) fn kill_9(pid: u32) {
    let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
}

/// Whether a process runs. One that has ended, but was not yet waited for, doesn't.
pub(crate) fn alive(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| {
        !stat
            .rsplit(") ")
            .next()
            .is_some_and(|rest| rest.starts_with(['Z', 'X']))
    })
}
