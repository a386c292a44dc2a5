//! One run of an instance: from the start of its process to its end.

use std::sync::Arc;
use std::time::Duration;

use tokio::process::{ChildStderr, ChildStdout};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use crate::board::Board;
use crate::child::{Child, Exit, Launch};
use crate::health::{self, Verdict};
use crate::instance::Instance;
use crate::log::{Stream, collect};
use crate::probe::Check;
use crate::status::State;

/// How long a process that got SIGKILL may take to be gone; more, and the kernel can't end it.
const KILL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the last lines of an ended process may take to be read.
const LAST_LINES_TIMEOUT: Duration = Duration::from_millis(500);

/// How a run ended.
pub(crate) enum End {
    /// Because the goal has changed.
    Asked(String),
    Completed,
    Failed(String),
    Crashed {
        reason: String,
        healthy_for: Option<Duration>,
    },
}

struct Attempt {
    child: Child,
    check: Check,
    readers: [JoinHandle<()>; 2],
    started: Instant,
}

impl Instance {
    /// Runs the process once.
    pub(crate) async fn attempt(&mut self) -> End {
        match self.start().await {
            Ok(attempt) => self.attend(attempt).await,
            Err(reason) if self.process.probe().is_completed() => End::Failed(reason),
            Err(reason) => End::Crashed {
                reason,
                healthy_for: None,
            },
        }
    }

    async fn start(&mut self) -> Result<Attempt, String> {
        self.ports
            .settle(&self.name, self.process.host, &self.context.given)?;
        let vars = self.process.vars(&self.name, self.replica, &self.ports);
        let args: Result<Vec<_>, _> = self
            .process
            .args
            .iter()
            .map(|arg| vars.expand(arg))
            .collect();
        let env = self.process.env.iter();
        let env: Result<Vec<_>, _> = env
            .map(|(name, value)| Ok::<_, String>((name.clone(), vars.expand(value)?)))
            .collect();
        let check = self.process.probe().resolve(vars)?;
        let launch = Launch {
            instance: self.name.clone(),
            program: self.process.program.clone(),
            args: args?,
            env: env?,
            dir: self.process.dir.clone(),
        };

        let started = Instant::now();
        let (child, stdout, stderr) = Child::spawn(&self.context.supervisor, &launch).await?;
        let readers = self.read(stdout, stderr);
        let (pid, port, named_ports) = (child.pid(), self.ports.main(), self.ports.named());
        self.update(|row| {
            row.status.pid = Some(pid);
            row.status.port = port;
            row.status.named_ports = named_ports;
        });
        Ok(Attempt {
            child,
            check,
            readers,
            started,
        })
    }

    fn read(&self, stdout: ChildStdout, stderr: ChildStderr) -> [JoinHandle<()>; 2] {
        let name: Arc<str> = self.name.as_str().into();
        let (kept, output) = (&self.kept, &self.context.output);
        [
            tokio::spawn(collect(
                stdout,
                name.clone(),
                Stream::Stdout,
                kept.clone(),
                output.clone(),
            )),
            tokio::spawn(collect(
                stderr,
                name,
                Stream::Stderr,
                kept.clone(),
                output.clone(),
            )),
        ]
    }

    /// Watches a running process until it ends by itself, or ends it when the goal changes.
    async fn attend(&mut self, mut attempt: Attempt) -> End {
        let probe = self.process.probe();
        let mut report = Report {
            board: &self.context.board.clone(),
            instance: &self.name.clone(),
            started: attempt.started,
            start_timeout: self.process.start_timeout,
            healthy_since: None,
        };
        let watching = health::watch(
            probe.timing(),
            self.process.start_timeout,
            || attempt.check.ask(),
            |verdict| report.write(verdict),
        );

        let exit = tokio::select! {
            exit = attempt.child.ended() => Some(exit),
            _ = self.goal.changed() => None,
            never = watching => match never {},
        };
        let asked = exit.is_none();
        let exit = match exit {
            Some(exit) => exit,
            None => self.stop(&mut attempt.child).await,
        };
        // If the sink is slow the readers go on by themselves; only the report won't wait for them.
        let last_lines = async {
            for reader in attempt.readers {
                let _ = reader.await;
            }
        };
        let _ = timeout(LAST_LINES_TIMEOUT, last_lines).await;
        let reason = exit.to_string();
        if asked {
            return End::Asked(reason);
        }
        match exit {
            Exit::Code(0) if probe.is_completed() => End::Completed,
            _ if probe.is_completed() => End::Failed(reason),
            _ => End::Crashed {
                reason,
                healthy_for: report.healthy_since.map(|since| since.elapsed()),
            },
        }
    }

    /// SIGTERM, then SIGKILL when the grace is over or somebody is in a hurry.
    async fn stop(&self, child: &mut Child) -> Exit {
        self.set(State::Stopping, None);
        let grace = self.process.stop_grace;
        child.terminate().await;
        let impatience = tokio::select! {
            exit = child.ended() => return exit,
            () = sleep(grace) => format!("did not end within {} of SIGTERM", spell(grace)),
            () = self.context.hurry.cancelled() => "was given no time to end".to_owned(),
        };
        child.kill().await;
        Exit::Other(match timeout(KILL_TIMEOUT, child.ended()).await {
            Ok(exit) => format!("{impatience}: {exit}"),
            Err(_) => format!("{impatience}, and SIGKILL did not end it"),
        })
    }
}

/// Writes the verdicts of a probe on the board.
struct Report<'a> {
    board: &'a Board,
    instance: &'a str,
    started: Instant,
    start_timeout: Duration,
    healthy_since: Option<Instant>,
}

impl Report<'_> {
    fn write(&mut self, verdict: Verdict) {
        self.board.update(self.instance, |row| match verdict {
            Verdict::Healthy => {
                let again = row.status.state == State::Unhealthy && row.outcome == Some(Ok(()));
                let after = || format!("after {}", spell(self.started.elapsed()));
                self.healthy_since = Some(Instant::now());
                row.status.reason = (!again).then(after);
                row.status.state = State::Healthy;
                row.outcome.get_or_insert(Ok(()));
            }
            Verdict::Late(problem) => {
                let limit = spell(self.start_timeout);
                let reason = format!("not healthy within {limit}: {problem}");
                row.outcome.get_or_insert(Err(reason.clone()));
                row.status.state = State::Unhealthy;
                row.status.reason = Some(reason);
            }
            Verdict::Unhealthy(problem) => {
                self.healthy_since = None;
                row.status.state = State::Unhealthy;
                row.status.reason = Some(problem);
            }
        });
    }
}

/// A duration for people: `30 ms`, `2.5 s`, `12 s`.
pub(crate) fn spell(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        ..1.0 => format!("{} ms", duration.as_millis()),
        1.0..10.0 if seconds.fract() >= 0.05 => format!("{seconds:.1} s"),
        _ => format!("{seconds:.0} s"),
    }
}
