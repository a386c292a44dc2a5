//! The processes between the runner and a program: no program outlives its runner.
//!
//! A runner that is killed by SIGKILL can't clean up, so somebody else has to. Two small processes
//! do it, both this same executable with a hidden first argument:
//!
//! ```text
//! runner ──socket── supervisor ──▶ guard ──exec──▶ program ──▶ its own children
//! ```
//!
//! - The **supervisor** stays beside the program for as long as anything of it lives. Its standard
//!   input is a socket to the runner. When the runner dies, however that happens, the kernel closes
//!   the other end, and the supervisor kills everything. It is a *subreaper* (`prctl(2)`,
//!   `PR_SET_CHILD_SUBREAPER`): a process that daemonizes, leaving its parent and its process
//!   group, becomes the supervisor's child and can't escape either.
//! - The **guard** turns into the program. Before that it asks the kernel for SIGKILL when the
//!   supervisor dies (`PR_SET_PDEATHSIG`, which `exec` keeps), then looks whether the supervisor is
//!   still there, as it may have died just before. So the program ends even if the supervisor and
//!   the runner are killed in one blow, as by `killall -9`.
//!
//! Why two: a death signal alone reaches one process and none of its children; and it is set by the
//! process itself, between `fork` and `exec`, which safe Rust can only do with an `exec` of its own.
//! A death signal is sent when the *thread* that forked ends, so the supervisor forks on its main
//! thread, which lives as long as the process. The runner may start supervisors on any thread.
//!
//! Both prctl calls are Linux'. Elsewhere the socket and the process group do the same work, except
//! that a process which leaves its group escapes.
//!
//! The socket carries lines. To the supervisor: `term` (SIGTERM to the group) and `kill` (SIGKILL to
//! all). From it: `started PID`, `failed REASON`, `exited CODE`, `killed SIGNAL`; its end means that
//! nothing of the program is left.

use std::ffi::{OsStr, OsString};
use std::io::{BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitOptions, kill_process_group};
use tokio::signal::unix::{SignalKind, signal};

const SUPERVISE: &str = "__stack-supervise";
const GUARD: &str = "__stack-guard";

/// Exit code for a program that can't be run, as shells use it.
const CANNOT_RUN: i32 = 127;

/// Turns this process into a supervisor or guard if it was started as one, and then does not
/// return. Call it first in `main` of every program that starts a [`Stack`](crate::Stack): before
/// arguments are parsed, a runtime is built or threads are started.
///
/// ```
/// # #[allow(clippy::needless_doctest_main)]
/// fn main() {
///     waypost_runner::shim::run_if_asked();
///     // … the program itself
/// }
/// ```
pub fn run_if_asked() {
    let mut args = std::env::args_os().skip(1);
    let code = match args.next().as_deref().and_then(OsStr::to_str) {
        Some(SUPERVISE) => supervise(&args.collect::<Vec<_>>()),
        Some(GUARD) => guard(&args.collect::<Vec<_>>()),
        _ => return,
    };
    std::process::exit(code)
}

/// Whether this process should have become a supervisor or guard, but runs on.
pub(crate) fn was_forgotten() -> bool {
    let first = std::env::args_os().nth(1);
    first.is_some_and(|first| first == SUPERVISE || first == GUARD)
}

/// The arguments that make this executable the supervisor of `program`. The instance's name is
/// there for people who read the process list.
pub(crate) fn supervisor_args(instance: &str, program: &OsStr, args: &[String]) -> Vec<OsString> {
    let mut all = vec![SUPERVISE.into(), instance.into(), program.to_owned()];
    all.extend(args.iter().map(OsString::from));
    all
}

/// This executable, as the program of a command. On Linux the link is taken, as it leads to the
/// same file even after that was replaced by a newer build.
pub(crate) fn this_executable() -> std::io::Result<OsString> {
    if cfg!(target_os = "linux") {
        return Ok("/proc/self/exe".into());
    }
    std::env::current_exe().map(OsString::from)
}

fn supervise(args: &[OsString]) -> i32 {
    let (Ok(runner), [instance, command @ ..]) = (control(), args) else {
        eprintln!("waypost-runner: a supervisor is started by a runner only");
        return CANNOT_RUN;
    };
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_child_subreaper(Some(rustix::process::getpid())) {
        say(
            &runner,
            format_args!("failed cannot become a subreaper: {error}"),
        );
        return CANNOT_RUN;
    }

    let _deaf = ignore_signals();
    let me = std::env::args_os().next().unwrap_or_default();
    let started = this_executable().and_then(|executable| {
        Command::new(executable)
            .arg0(me)
            .arg(GUARD)
            .arg(std::process::id().to_string())
            .args(command)
            .process_group(0)
            .spawn()
    });
    let program = match started {
        Ok(child) => Pid::from_child(&child),
        Err(error) => {
            say(
                &runner,
                format_args!("failed cannot start `{}`: {error}", instance.display()),
            );
            return CANNOT_RUN;
        }
    };
    say(
        &runner,
        format_args!("started {}", program.as_raw_nonzero()),
    );

    let tree = Arc::new(Tree {
        group: program,
        state: Mutex::default(),
    });
    let Ok(orders) = runner.try_clone() else {
        tree.order(Mode::Killing);
        return CANNOT_RUN;
    };
    let obeying = tree.clone();
    if std::thread::Builder::new()
        .spawn(move || obey(&obeying, orders))
        .is_err()
    {
        tree.order(Mode::Killing);
    }
    reap(&tree, &runner)
}

/// Survives the signals that a service manager or a `pkill` sends to everybody at once: the runner
/// has got it too, and it decides in which order things end. (Handlers, unlike ignored signals, are
/// not passed on to the program.)
fn ignore_signals() -> std::io::Result<impl Sized> {
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
        .collect::<std::io::Result<Vec<_>>>()
}

/// Does what the runner says; its silence, that is the end of the socket, means that it is dead.
fn obey(tree: &Tree, orders: UnixStream) {
    for order in BufReader::new(orders).lines().map_while(Result::ok) {
        match order.as_str() {
            "term" => tree.order(Mode::Ending),
            "kill" => tree.order(Mode::Killing),
            _ => {}
        }
    }
    tree.order(Mode::Killing);
}

/// Waits until nothing of the tree is left. Returns the exit code of the program.
fn reap(tree: &Tree, runner: &UnixStream) -> i32 {
    let mut code = CANNOT_RUN;
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((pid, status))) => {
                if pid == tree.group {
                    if let Some(exit) = status.exit_status() {
                        code = exit;
                        say(runner, format_args!("exited {exit}"));
                    } else if let Some(signal) = status.terminating_signal() {
                        code = 128 + signal;
                        say(runner, format_args!("killed {signal}"));
                    }
                }
                tree.reaped(pid);
            }
            Ok(None) | Err(Errno::INTR) => {}
            // No child is left, adopted ones included.
            Err(_) => return code,
        }
    }
}

/// The program and everything that it started.
struct Tree {
    /// The program leads its process group.
    group: Pid,
    state: Mutex<TreeState>,
}

#[derive(Default)]
struct TreeState {
    mode: Mode,
    /// The program has ended and nobody else is left in its group, whose number may get a new owner.
    group_gone: bool,
    /// Those that were sent SIGTERM. Nobody is told twice: many programs take that for "now".
    told: Vec<Pid>,
}

#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd)]
enum Mode {
    #[default]
    Running,
    /// SIGTERM has been sent: whoever is left may take its time.
    Ending,
    Killing,
}

impl Tree {
    fn order(&self, mode: Mode) {
        let mut state = self.lock();
        if mode <= state.mode {
            return;
        }
        state.mode = mode;
        match mode {
            Mode::Running => {}
            Mode::Ending => {
                let in_group = |pid: &Pid| rustix::process::getpgid(Some(*pid)) == Ok(self.group);
                state.told = descendants(rustix::process::getpid())
                    .into_iter()
                    .filter(in_group)
                    .collect();
                self.signal_group(&mut state, Signal::TERM);
                // A process that is stopped hears nothing until it goes on.
                self.signal_group(&mut state, Signal::CONT);
            }
            Mode::Killing => self.kill(&mut state),
        }
    }

    /// A child has ended, and the kernel has handed its children to us: they, too, must go.
    fn reaped(&self, pid: Pid) {
        let mut state = self.lock();
        if pid == self.group {
            let empty = rustix::process::test_kill_process_group(self.group).is_err();
            state.group_gone = empty;
            // It crashed (or is done). What it leaves behind would be in the way of the next start.
            if state.mode == Mode::Running {
                state.mode = Mode::Killing;
            }
        }
        match state.mode {
            Mode::Running => {}
            Mode::Ending => self.end_adopted(&mut state),
            Mode::Killing => self.kill(&mut state),
        }
    }

    fn kill(&self, state: &mut TreeState) {
        self.signal_group(state, Signal::KILL);
        for child in children(rustix::process::getpid()) {
            let _ = rustix::process::kill_process(child, Signal::KILL);
        }
    }

    /// SIGTERM to those who did not hear it yet: they had left the group, or were born too late.
    fn end_adopted(&self, state: &mut TreeState) {
        for child in children(rustix::process::getpid()) {
            if !state.told.contains(&child) {
                state.told.push(child);
                let _ = rustix::process::kill_process(child, Signal::TERM);
            }
        }
    }

    fn signal_group(&self, state: &mut TreeState, signal: Signal) {
        if !state.group_gone && kill_process_group(self.group, signal) == Err(Errno::SRCH) {
            state.group_gone = true;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, TreeState> {
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

/// Nobody is adopted here.
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

fn guard(args: &[OsString]) -> i32 {
    let (Ok(runner), [supervisor, program, args @ ..]) = (control(), args) else {
        eprintln!("waypost-runner: a guard is started by a supervisor only");
        return CANNOT_RUN;
    };
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::process::set_parent_process_death_signal(Some(Signal::KILL)) {
        say(
            &runner,
            format_args!("failed cannot ask for a death signal: {error}"),
        );
        return CANNOT_RUN;
    }
    let parent = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().to_string());
    if parent.as_deref() != supervisor.to_str() {
        return CANNOT_RUN;
    }
    let error = Command::new(program).args(args).stdin(Stdio::null()).exec();
    say(
        &runner,
        format_args!("failed cannot run `{}`: {error}", program.display()),
    );
    CANNOT_RUN
}

/// Reports a line. Supervisor and guard may report at the same moment, so each line is one write.
fn say(mut runner: &UnixStream, report: std::fmt::Arguments<'_>) {
    // If the runner is gone, `obey` notices.
    let _ = runner.write_all(format!("{report}\n").as_bytes());
}

/// The socket to the runner: a copy of standard input that `exec` closes.
fn control() -> std::io::Result<UnixStream> {
    std::io::stdin()
        .as_fd()
        .try_clone_to_owned()
        .map(UnixStream::from)
}
