//! A running program and the runner's connection to its [`shim`].

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::process::Stdio;
use std::time::Duration;
use std::{fmt, io};

use rustix::process::{Pid, Signal};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::{ChildStderr, ChildStdout, Command};
use tokio::time::{sleep, timeout};

use crate::error::SupervisorError;
use crate::service::Launch;
use crate::shim;
use crate::status::ExitStatus;
use crate::text::rounded;

/// How long a shim may take to report that it has started the program.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a program may take to exit after SIGKILL. It takes longer only if it is blocked in the
/// kernel, for example by a disk that does not respond.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);

/// A program under its shim. Dropping it kills everything that the program started, because that
/// closes the shim's socket.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
    shim: tokio::process::Child,
    reports: Lines<BufReader<OwnedReadHalf>>,
    commands: OwnedWriteHalf,
    exit: Option<Exit>,
}

/// How a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    Code(i32),
    Signal(i32),
    /// A description, for a program that could not be run, was killed together with its shim, or did
    /// not react to SIGTERM.
    Other(String),
}

impl Exit {
    pub(crate) fn status(&self) -> Option<ExitStatus> {
        match self {
            Self::Code(code) => Some(ExitStatus::Code(*code)),
            Self::Signal(signal) => Some(ExitStatus::Signal(match signal_name(*signal) {
                Some(name) => name.trim_start_matches("SIG").to_owned(),
                None => signal.to_string(),
            })),
            Self::Other(_) => None,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => match signal_name(*signal) {
                Some(name) => write!(f, "killed by {name}"),
                None => write!(f, "killed by signal {signal}"),
            },
            Self::Other(description) => f.write_str(description),
        }
    }
}

impl Child {
    /// Starts a program. `shim_executable` is one whose `main` begins with
    /// [`shim::run_if_requested`].
    ///
    /// # Errors
    /// Why the program could not be started.
    pub(crate) async fn spawn(
        shim_executable: &OsStr,
        launch: &Launch,
    ) -> Result<(Self, ChildStdout, ChildStderr), String> {
        let (mut shim, socket) =
            spawn_shim(shim_executable, launch).map_err(|error| match &launch.dir {
                Some(dir) => format!("cannot start in {}: {error}", dir.display()),
                None => format!("cannot start: {error}"),
            })?;
        let (Some(stdout), Some(stderr)) = (shim.stdout.take(), shim.stderr.take()) else {
            return Err("cannot start: its output is not connected".to_owned());
        };

        let (reports, commands) = socket.into_split();
        let mut reports = BufReader::new(reports).lines();
        let first = timeout(START_TIMEOUT, reports.next_line()).await;
        let first = first.ok().and_then(Result::ok).flatten();
        match first.as_deref().map(split_report) {
            Some(("started", pid)) => {
                let pid = pid.parse().ok().and_then(Pid::from_raw);
                let child = Self {
                    pid: pid.ok_or("its shim reported an invalid process id")?,
                    shim,
                    reports,
                    commands,
                    exit: None,
                };
                Ok((child, stdout, stderr))
            }
            Some(("failed", reason)) => Err(reason.to_owned()),
            _ => {
                let _ = shim.start_kill();
                Err(format!(
                    "its shim did not respond: {}",
                    SupervisorError::ShimNotCalled
                ))
            }
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Waits until the program and everything that it started have exited. Cancel safe.
    pub(crate) async fn wait(&mut self) -> Exit {
        while let Ok(Some(report)) = self.reports.next_line().await {
            let (kind, detail) = split_report(&report);
            let exit = match kind {
                "exited" => detail.parse().ok().map(Exit::Code),
                "killed" => detail.parse().ok().map(Exit::Signal),
                "failed" => Some(Exit::Other(detail.to_owned())),
                _ => None,
            };
            // A launcher that fails reports the reason and then exits: the first report says more.
            self.exit = self.exit.take().or(exit);
        }
        let status = self.shim.wait().await;
        if self.exit.is_none() {
            // The shim was killed, and the program with it, but not the rest of its group.
            let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
        }
        self.exit
            .get_or_insert_with(|| {
                Exit::Other(match status {
                    Ok(status) => format!("its shim ended unexpectedly ({status})"),
                    Err(error) => format!("cannot wait for its shim: {error}"),
                })
            })
            .clone()
    }

    /// Stops the program: `signal` to its process group, then SIGKILL to everything that it started
    /// if it has not exited after `grace`, or as soon as `forced` completes.
    pub(crate) async fn stop(
        &mut self,
        signal: Signal,
        grace: Duration,
        forced: impl Future,
    ) -> Exit {
        self.send(&format!("stop {}\n", signal.as_raw())).await;
        let name = signal_name(signal.as_raw()).unwrap_or("the signal");
        let why_killed = tokio::select! {
            exit = self.wait() => return exit,
            () = sleep(grace) => format!("did not exit within {} of {name}", rounded(grace)),
            _ = forced => "shutdown was forced".to_owned(),
        };
        self.send("kill\n").await;
        Exit::Other(match timeout(KILL_TIMEOUT, self.wait()).await {
            Ok(exit) => format!("{why_killed}: {exit}"),
            Err(_) => format!("{why_killed}, and is still running after SIGKILL"),
        })
    }

    async fn send(&mut self, command: &str) {
        // Fails only if the shim is gone, and the program with it.
        let _ = self.commands.write_all(command.as_bytes()).await;
    }
}

fn spawn_shim(
    executable: &OsStr,
    launch: &Launch,
) -> io::Result<(tokio::process::Child, UnixStream)> {
    let (ours, theirs) = StdUnixStream::pair()?;
    ours.set_nonblocking(true)?;
    let mut command = Command::new(executable);
    command
        .args(shim::args(&launch.instance, &launch.program, &launch.args))
        .envs(launch.env.iter().map(|(name, value)| (name, value)))
        // Outside the terminal's foreground group, so that Ctrl-C reaches the runner alone.
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
    // Dropping the command afterwards closes our copy of the shim's end of the socket.
    Ok((command.spawn()?, UnixStream::from_std(ours)?))
}

fn split_report(line: &str) -> (&str, &str) {
    line.split_once(' ').unwrap_or((line, ""))
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
        (Signal::USR1, "SIGUSR1"),
        (Signal::USR2, "SIGUSR2"),
    ]
    .into_iter()
    .find_map(|(known, name)| (known.as_raw() == signal).then_some(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_program_is_named_by_its_code_or_its_signal() {
        let signal = |name: &str| Some(ExitStatus::Signal(name.to_owned()));
        for (exit, text, status) in [
            (
                Exit::Code(3),
                "exited with code 3",
                Some(ExitStatus::Code(3)),
            ),
            (Exit::Signal(9), "killed by SIGKILL", signal("KILL")),
            (Exit::Signal(11), "killed by SIGSEGV", signal("SEGV")),
            // A real-time signal has no name.
            (Exit::Signal(42), "killed by signal 42", signal("42")),
            (Exit::Other("it hangs".to_owned()), "it hangs", None),
        ] {
            assert_eq!(exit.to_string(), text);
            assert_eq!(exit.status(), status, "{text}");
        }
    }

    #[test]
    fn a_report_has_a_kind_and_a_detail() {
        assert_eq!(
            split_report("failed cannot run `a b`"),
            ("failed", "cannot run `a b`")
        );
        assert_eq!(split_report("started"), ("started", ""));
    }
}
