//! A running program, seen from the runner. The other side is in [`shim`](crate::shim).

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{ChildStderr, ChildStdout, Command};
use tokio::time::timeout;

use crate::error::StackError;
use crate::shim;

/// How long a supervisor may take to start. It is an executable that was just run.
const HELLO_TIMEOUT: Duration = Duration::from_secs(10);

/// What to run, with every placeholder replaced.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) instance: String,
    pub(crate) program: OsString,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) dir: Option<PathBuf>,
}

/// A program under its supervisor. When this is dropped, everything that the program started is
/// killed, as it is when the runner itself dies.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
    supervisor: tokio::process::Child,
    reports: Lines<BufReader<OwnedReadHalf>>,
    orders: OwnedWriteHalf,
    exit: Option<Exit>,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(i32),
    Signal(i32),
    /// It could not be run, or its supervisor was killed.
    Other(String),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => match signal_name(*signal) {
                Some(name) => write!(f, "killed by {name}"),
                None => write!(f, "killed by signal {signal}"),
            },
            Self::Other(reason) => f.write_str(reason),
        }
    }
}

impl Child {
    /// Starts a program. `supervisor` is an executable whose `main` begins with
    /// [`shim::run_if_asked`].
    pub(crate) async fn spawn(
        supervisor: &OsString,
        launch: &Launch,
    ) -> Result<(Self, ChildStdout, ChildStderr), String> {
        let start = || -> io::Result<_> {
            let (ours, theirs) = StdUnixStream::pair()?;
            ours.set_nonblocking(true)?;
            let mut command = Command::new(supervisor);
            command
                .args(shim::supervisor_args(
                    &launch.instance,
                    &launch.program,
                    &launch.args,
                ))
                .envs(launch.env.iter().map(|(name, value)| (name, value)))
                // Out of the terminal's foreground group: Ctrl-C is for the runner alone.
                .process_group(0)
                .stdin(OwnedFd::from(theirs))
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
            if let Some(name) = std::env::args_os().next() {
                command.arg0(name);
            }
            if let Some(dir) = &launch.dir {
                command.current_dir(dir);
            }
            // Dropping the command closes our copy of the supervisor's end.
            Ok((command.spawn()?, UnixStream::from_std(ours)?))
        };
        let (mut supervisor, socket) = start().map_err(|error| match &launch.dir {
            Some(dir) => format!("cannot be started in {}: {error}", dir.display()),
            None => format!("cannot be started: {error}"),
        })?;
        let (Some(stdout), Some(stderr)) = (supervisor.stdout.take(), supervisor.stderr.take())
        else {
            return Err("cannot be started: its output can't be read".to_owned());
        };

        let (reports, orders) = socket.into_split();
        let mut reports = BufReader::new(reports).lines();
        let first = timeout(HELLO_TIMEOUT, reports.next_line()).await;
        let first = first.ok().and_then(Result::ok).flatten();
        match first
            .as_deref()
            .map(|line| line.split_once(' ').unwrap_or((line, "")))
        {
            Some(("started", pid)) => {
                let pid = pid.parse().ok().and_then(Pid::from_raw);
                let pid = pid.ok_or("its supervisor reported no process id")?;
                Ok((
                    Self {
                        pid,
                        supervisor,
                        reports,
                        orders,
                        exit: None,
                    },
                    stdout,
                    stderr,
                ))
            }
            Some(("failed", reason)) => Err(reason.to_owned()),
            _ => {
                let _ = supervisor.start_kill();
                Err(format!(
                    "its supervisor did not answer: {}",
                    StackError::NoShim
                ))
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Waits until the program and everything that it started has ended. Can be dropped and called
    /// again.
    pub(crate) async fn ended(&mut self) -> Exit {
        while let Ok(Some(report)) = self.reports.next_line().await {
            let (what, detail) = report.split_once(' ').unwrap_or((&report, ""));
            let exit = match what {
                "exited" => detail.parse().ok().map(Exit::Code),
                "killed" => detail.parse().ok().map(Exit::Signal),
                "failed" => Some(Exit::Other(detail.to_owned())),
                _ => None,
            };
            // A guard that fails reports it and exits: the first report is the better one.
            self.exit = self.exit.take().or(exit);
        }
        let status = self.supervisor.wait().await;
        if self.exit.is_none() {
            // The supervisor was killed, and the program with it, but not the rest of its group.
            let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
        }
        self.exit
            .get_or_insert_with(|| {
                Exit::Other(match status {
                    Ok(status) => format!("its supervisor died ({status})"),
                    Err(error) => format!("its supervisor was lost: {error}"),
                })
            })
            .clone()
    }

    /// Sends SIGTERM to the process group of the program.
    pub(crate) async fn terminate(&mut self) {
        self.order("term\n").await;
    }

    /// Sends SIGKILL to everything that the program started.
    pub(crate) async fn kill(&mut self) {
        self.order("kill\n").await;
    }

    async fn order(&mut self, order: &str) {
        // If the supervisor is gone, so is the program.
        let _ = self.orders.write_all(order.as_bytes()).await;
    }
}

fn signal_name(signal: i32) -> Option<&'static str> {
    [
        (Signal::HUP, "SIGHUP"),
        (Signal::INT, "SIGINT"),
        (Signal::QUIT, "SIGQUIT"),
        (Signal::ILL, "SIGILL"),
        (Signal::ABORT, "SIGABRT"),
        (Signal::BUS, "SIGBUS"),
        (Signal::FPE, "SIGFPE"),
        (Signal::KILL, "SIGKILL"),
        (Signal::SEGV, "SIGSEGV"),
        (Signal::PIPE, "SIGPIPE"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::TERM, "SIGTERM"),
    ]
    .into_iter()
    .find_map(|(known, name)| (known.as_raw() == signal).then_some(name))
}
