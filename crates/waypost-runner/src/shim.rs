//! The processes between the runner and a program, which make sure that no program outlives its
//! runner.
//!
//! A runner that is killed by SIGKILL cannot clean up, so other processes have to. Two small ones do
//! it. Both are this same executable, started with a hidden first argument:
//!
//! ```text
//! runner ──socket── shim ──▶ launcher ──exec──▶ program ──▶ its own children
//! ```
//!
//! - The **shim** runs for as long as the program or anything that it started. Its standard input is
//!   a socket to the runner. When the runner dies, for whatever reason, the kernel closes the other
//!   end, and the shim kills everything. It is a *subreaper* (`prctl(2)`,
//!   `PR_SET_CHILD_SUBREAPER`): a process that daemonizes, which leaves both its parent and its
//!   process group, becomes a child of the shim, so it cannot escape either.
//! - The **launcher** becomes the program by `exec`. Before that it asks the kernel for a SIGKILL
//!   when the shim dies (`PR_SET_PDEATHSIG`, which `exec` preserves unless the program is
//!   set-user-ID) and then checks that the shim is still its parent, as it may have died just before.
//!   So the program ends even if the shim and the runner are killed at the same moment, as by
//!   `killall -9`.
//!
//! Why two: the parent-death signal reaches one process and none of its children, so it cannot
//! replace the shim. And a process can only set it for itself, between `fork` and `exec`, where safe
//! Rust cannot run code; the launcher is a process that does it in `main`. The signal is sent when
//! the *thread* that forked ends, so the shim forks on its main thread, which lives as long as the
//! process. The runner may start shims on any thread.
//!
//! Both prctl calls exist on Linux only. Elsewhere the socket and the process group do the same
//! work, except that a process that leaves its group escapes.
//!
//! The socket carries lines. To the shim: `stop SIGNAL` (to the group) and `kill` (SIGKILL to
//! everything). From it: `started PID`, `failed REASON`, `exited CODE`, `killed SIGNAL`. The end of
//! the stream means that nothing of the program is left.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::{fmt, io};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group};
use tokio::signal::unix::{SignalKind, signal};

const SHIM: &str = "__runner-shim";
const LAUNCHER: &str = "__runner-launcher";

/// The exit code of a shell for a program that cannot be run.
const CANNOT_RUN: i32 = 127;

/// Runs this process as a shim or launcher if it was started as one, and then exits. Otherwise
/// returns at once. Must be the first call in `main` of every program that starts a
/// [`Stack`](crate::Stack): before arguments are parsed, a runtime is built or threads are started.
///
/// ```
/// # #[allow(clippy::needless_doctest_main)]
/// fn main() {
///     waypost_runner::shim::run_if_requested();
///     // … the program itself
/// }
/// ```
pub fn run_if_requested() {
    let mut args = std::env::args_os().skip(1);
    let code = match args.next().as_deref().and_then(OsStr::to_str) {
        Some(SHIM) => run_shim(&args.collect::<Vec<_>>()),
        Some(LAUNCHER) => run_launcher(&args.collect::<Vec<_>>()),
        _ => return,
    };
    std::process::exit(code)
}

/// Whether this process was started as a shim or launcher, but `main` did not call
/// [`run_if_requested`].
pub(crate) fn was_bypassed() -> bool {
    let first = std::env::args_os().nth(1);
    first.is_some_and(|first| first == SHIM || first == LAUNCHER)
}

/// The arguments that make this executable the shim of `program`. The name of the instance is only
/// for people who read the process list.
pub(crate) fn args(instance: &str, program: &OsStr, args: &[String]) -> Vec<OsString> {
    let mut all = vec![SHIM.into(), instance.into(), program.to_owned()];
    all.extend(args.iter().map(OsString::from));
    all
}

/// The path of this executable. On Linux it is a link that leads to the same file even after the
/// file was replaced by a newer build.
pub(crate) fn this_executable() -> io::Result<OsString> {
    if cfg!(target_os = "linux") {
        return Ok("/proc/self/exe".into());
    }
    std::env::current_exe().map(OsString::from)
}

fn run_shim(args: &[OsString]) -> i32 {
    let (Ok(runner), [instance, command @ ..]) = (control_socket(), args) else {
        eprintln!("waypost-runner: a shim can only be started by a runner");
        return CANNOT_RUN;
    };
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        report(
            &runner,
            format_args!("failed cannot become a subreaper: {error}"),
        );
        return CANNOT_RUN;
    }

    let _handlers = catch_signals();
    let this_name = std::env::args_os().next().unwrap_or_default();
    let started = this_executable().and_then(|executable| {
        Command::new(executable)
            .arg0(this_name)
            .arg(LAUNCHER)
            .arg(std::process::id().to_string())
            .args(command)
            .process_group(0)
            .spawn()
    });
    let program = match started {
        Ok(child) => Pid::from_child(&child),
        Err(error) => {
            report(
                &runner,
                format_args!("failed cannot start `{}`: {error}", instance.display()),
            );
            return CANNOT_RUN;
        }
    };
    report(
        &runner,
        format_args!("started {}", program.as_raw_nonzero()),
    );

    let tree = Arc::new(ProcessTree {
        group: program,
        state: Mutex::default(),
    });
    let Ok(commands) = runner.try_clone() else {
        tree.enter(Mode::Killing);
        return CANNOT_RUN;
    };
    let commanded = tree.clone();
    if std::thread::Builder::new()
        .spawn(move || follow_commands(&commanded, commands))
        .is_err()
    {
        tree.enter(Mode::Killing);
    }
    reap(&tree, &runner)
}

/// Survives the signals that a service manager or `pkill` sends to all processes at once: the runner
/// gets them too, and decides in which order the programs are stopped. (Handlers, unlike ignored
/// signals, are not inherited by the program.)
fn catch_signals() -> io::Result<impl Sized> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_io()
        .build()?;
    let _context = runtime.enter();
    let kinds = [
        SignalKind::terminate(),
        SignalKind::interrupt(),
        SignalKind::hangup(),
    ];
    kinds
        .into_iter()
        .map(signal)
        .collect::<io::Result<Vec<_>>>()
}

/// Carries out the commands of the runner. The end of the socket means that the runner is dead.
fn follow_commands(tree: &ProcessTree, commands: UnixStream) {
    for command in BufReader::new(commands).lines().map_while(Result::ok) {
        if command == "kill" {
            tree.enter(Mode::Killing);
        } else if let Some(signal) = command
            .strip_prefix("stop ")
            .and_then(|number| number.parse().ok())
            .and_then(Signal::from_named_raw)
        {
            tree.lock().stop_signal = Some(signal);
            tree.enter(Mode::Terminating);
        }
    }
    tree.enter(Mode::Killing);
}

/// Waits until nothing of the tree is left. Returns the exit code of the program.
fn reap(tree: &ProcessTree, runner: &UnixStream) -> i32 {
    let mut code = CANNOT_RUN;
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) => {
                if pid == tree.group {
                    if let Some(exit) = status.exit_status() {
                        code = exit;
                        report(runner, format_args!("exited {exit}"));
                    } else if let Some(signal) = status.terminating_signal() {
                        code = 128 + signal;
                        report(runner, format_args!("killed {signal}"));
                    }
                }
                tree.reaped(pid);
            }
            Ok(None) | Err(Errno::INTR) => {}
            // No children are left, adopted ones included.
            Err(_) => return code,
        }
    }
}

/// The program and everything that it started.
struct ProcessTree {
    /// The process group of the program, which leads it.
    group: Pid,
    state: Mutex<TreeState>,
}

#[derive(Default)]
struct TreeState {
    mode: Mode,
    /// The signal that requests the program to exit.
    stop_signal: Option<Signal>,
    /// The program has ended and its group is empty, so the kernel may reuse its number.
    group_gone: bool,
    /// The processes that were sent the signal. No process is sent it twice, because many programs take a
    /// second one as a request to exit at once.
    terminated: Vec<Pid>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd)]
enum Mode {
    #[default]
    Running,
    /// The signal was sent. The remaining processes may take their time.
    Terminating,
    Killing,
}

impl ProcessTree {
    /// Advances to a mode. Does nothing if the tree has reached it or a later one.
    fn enter(&self, mode: Mode) {
        let mut state = self.lock();
        if mode <= state.mode {
            return;
        }
        state.mode = mode;
        match mode {
            Mode::Running => {}
            Mode::Terminating => {
                let in_group = |pid: &Pid| rustix::process::getpgid(Some(*pid)) == Ok(self.group);
                state.terminated = descendants(rustix::process::getpid())
                    .into_iter()
                    .filter(in_group)
                    .collect();
                let signal = state.stop_signal.unwrap_or(Signal::TERM);
                self.signal_group(&mut state, signal);
                // A stopped process handles no signal until it is continued.
                self.signal_group(&mut state, Signal::CONT);
            }
            Mode::Killing => self.kill(&mut state),
        }
    }

    /// Handles the end of a child. Its children are now children of this process and have to end as well.
    fn reaped(&self, pid: Pid) {
        let mut state = self.lock();
        if pid == self.group {
            let empty = rustix::process::test_kill_process_group(self.group).is_err();
            state.group_gone = empty;
            // It has crashed or completed. Whatever it leaves behind could hold ports or files that
            // the next start needs.
            if state.mode == Mode::Running {
                state.mode = Mode::Killing;
            }
        }
        match state.mode {
            Mode::Running => {}
            Mode::Terminating => self.terminate_adopted(&mut state),
            Mode::Killing => self.kill(&mut state),
        }
    }

    fn kill(&self, state: &mut TreeState) {
        self.signal_group(state, Signal::KILL);
        for child in children(rustix::process::getpid()) {
            let _ = rustix::process::kill_process(child, Signal::KILL);
        }
    }

    /// Sends the signal to the children that did not get it with the group, because they had left the
    /// group or were started later.
    fn terminate_adopted(&self, state: &mut TreeState) {
        let signal = state.stop_signal.unwrap_or(Signal::TERM);
        for child in children(rustix::process::getpid()) {
            if !state.terminated.contains(&child) {
                state.terminated.push(child);
                let _ = rustix::process::kill_process(child, signal);
            }
        }
    }

    fn signal_group(&self, state: &mut TreeState, signal: Signal) {
        if !state.group_gone && kill_process_group(self.group, signal) == Err(Errno::SRCH) {
            state.group_gone = true;
        }
    }

    fn lock(&self) -> MutexGuard<'_, TreeState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The children of a process, adopted ones included.
#[cfg(target_os = "linux")]
fn children(parent: Pid) -> Vec<Pid> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", parent.as_raw_nonzero()));
    let lists = tasks.into_iter().flatten().flatten();
    let lists = lists.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    let pids = |list: String| list.split_whitespace().map(str::parse).collect::<Vec<_>>();
    lists
        .flat_map(pids)
        .flatten()
        .filter_map(Pid::from_raw)
        .collect()
}

/// Always empty: without a subreaper there are no adopted children.
#[cfg(not(target_os = "linux"))]
fn children(_parent: Pid) -> Vec<Pid> {
    Vec::new()
}

fn descendants(ancestor: Pid) -> Vec<Pid> {
    let mut all = children(ancestor);
    let mut index = 0;
    while let Some(&pid) = all.get(index) {
        all.extend(children(pid));
        index += 1;
    }
    all
}

fn run_launcher(args: &[OsString]) -> i32 {
    let (Ok(runner), [shim, program, args @ ..]) = (control_socket(), args) else {
        eprintln!("waypost-runner: a launcher can only be started by a shim");
        return CANNOT_RUN;
    };
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        report(
            &runner,
            format_args!("failed cannot set the parent-death signal: {error}"),
        );
        return CANNOT_RUN;
    }
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().to_string());
    if parent.as_deref() != shim.to_str() {
        return CANNOT_RUN;
    }
    let error = Command::new(program).args(args).stdin(Stdio::null()).exec();
    report(
        &runner,
        format_args!("failed cannot run `{}`: {error}", program.display()),
    );
    CANNOT_RUN
}

/// Sends a line to the runner. It is one write, because shim and launcher may report at the same
/// moment.
fn report(mut runner: &UnixStream, line: fmt::Arguments<'_>) {
    // If the runner is gone, `follow_commands` notices.
    let _ = runner.write_all(format!("{line}\n").as_bytes());
}

/// The socket to the runner: a copy of standard input that `exec` closes.
fn control_socket() -> io::Result<UnixStream> {
    io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map(UnixStream::from)
}
