//! A stack that can be watched and controlled.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use tokio::sync::{broadcast, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use super::changes::{Change, Changes};
use super::view::{Extra, SCHEMA, StackView, rfc3339, service_view};
use crate::log::{Level, Line, Stream, sanitize};
use crate::status::InstanceStatus;
use crate::supervisor::Supervisor;
use crate::usage::{Usage, UsageSampler};

/// The time for which changes are collected before they are published together.
const GATHER: Duration = Duration::from_millis(20);
/// How often CPU and memory use is measured while a client follows the changes.
const SAMPLE_EVERY: Duration = Duration::from_secs(2);
/// How many of the last lines are searched for an error.
const LINES_FOR_ERROR: usize = 200;

/// The properties of a stack, except for its services.
#[derive(Clone, Debug)]
pub struct About {
    /// The name of the stack.
    pub name: String,
    /// The stack file.
    pub file: Option<PathBuf>,
    /// The folder of the file, or the one that the stack was started in.
    pub directory: PathBuf,
    /// The URL of the registry.
    pub registry: String,
    /// The URL of the gateway.
    pub gateway: Option<String>,
    /// The URL of the dashboard.
    pub dashboard: Option<String>,
}

/// A stack that can be watched and controlled. Clones refer to the same one.
#[derive(Clone, Debug)]
pub struct Control(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    supervisor: Supervisor,
    about: About,
    started: SystemTime,
    changes: Mutex<Changes>,
    sampled: Mutex<Sampled>,
    registered: Mutex<HashMap<String, bool>>,
    is_down_requested: watch::Sender<bool>,
    dashboard_link: Mutex<String>,
}

/// The CPU time and memory that the programs use.
#[derive(Debug, Default)]
struct Sampled {
    sampler: UsageSampler,
    usage: HashMap<u32, Usage>,
    at: Option<Instant>,
}

impl Control {
    /// Starts to follow the changes of a stack.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn start(supervisor: Supervisor, about: About) -> Self {
        let mut table = supervisor.table_changes();
        let inner = Arc::new(Inner {
            about,
            started: SystemTime::now(),
            changes: Mutex::new(Changes::new()),
            sampled: Mutex::default(),
            registered: Mutex::default(),
            is_down_requested: watch::Sender::new(false),
            dashboard_link: Mutex::default(),
            supervisor,
        });
        let weak: Weak<Inner> = Arc::downgrade(&inner);
        tokio::spawn(async move {
            let mut tick = interval(SAMPLE_EVERY);
            tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                let is_sample = tokio::select! {
                    changed = table.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        sleep(GATHER).await;
                        table.mark_unchanged();
                        false
                    }
                    _ = tick.tick() => true,
                };
                let Some(inner) = weak.upgrade() else { return };
                let control = Self(inner);
                if !is_sample {
                    control.refresh();
                } else if lock(&control.0.changes).has_followers() {
                    control.sample();
                    control.refresh();
                }
            }
        });
        Self(inner)
    }

    /// The stack and all its services, as they are now.
    pub fn stack(&self) -> StackView {
        self.sample();
        self.refresh();
        let changes = lock(&self.0.changes);
        self.view(&changes)
    }

    /// Records whether the registry has an instance.
    pub fn set_registered(&self, instance: &str, is_registered: bool) {
        let before = lock(&self.0.registered).insert(instance.to_owned(), is_registered);
        if before != Some(is_registered) {
            self.refresh();
        }
    }

    /// Waits until a client requests that the stack is stopped.
    pub async fn down_requested(&self) {
        let mut requested = self.0.is_down_requested.subscribe();
        let _ = requested.wait_for(|requested| *requested).await;
    }

    /// Subscribes to future changes. Also returns those after `last_seen`, or the whole stack if some of
    /// them are no longer kept.
    pub(super) fn follow(
        &self,
        last_seen: Option<u64>,
    ) -> (
        Result<Vec<Change>, Box<StackView>>,
        broadcast::Receiver<Change>,
    ) {
        self.refresh();
        let changes = lock(&self.0.changes);
        let (missed, live) = changes.follow(last_seen);
        (missed.ok_or_else(|| Box::new(self.view(&changes))), live)
    }

    /// Sets the link to the dashboard with the token of the session, for the user of the socket.
    pub fn set_dashboard_link(&self, link: &str) {
        link.clone_into(&mut lock(&self.0.dashboard_link));
    }

    pub(super) fn dashboard_link(&self) -> String {
        lock(&self.0.dashboard_link).clone()
    }

    pub(super) fn supervisor(&self) -> &Supervisor {
        &self.0.supervisor
    }

    /// Requests that the stack is stopped.
    pub(super) fn request_down(&self) {
        self.0.is_down_requested.send_replace(true);
    }

    fn view(&self, changes: &Changes) -> StackView {
        let about = &self.0.about;
        StackView {
            schema: SCHEMA,
            name: about.name.clone(),
            file: about.file.as_ref().map(|file| file.display().to_string()),
            directory: about.directory.display().to_string(),
            started_at: rfc3339(self.0.started),
            event_id: changes.last_id(),
            pid: std::process::id(),
            registry: about.registry.clone(),
            gateway: about.gateway.clone(),
            dashboard: about.dashboard.clone(),
            services: changes.services().to_vec(),
        }
    }

    /// Publishes what has changed.
    fn refresh(&self) {
        // Locked first, so that an older state can't replace a newer one.
        let mut changes = lock(&self.0.changes);
        let statuses = self.0.supervisor.statuses();
        let extra = |status: &InstanceStatus| {
            let usage = status
                .pid
                .and_then(|pid| lock(&self.0.sampled).usage.get(&pid).copied());
            let step = |value: f64, step: f64| (value / step).round() * step;
            Extra {
                // Rounded, so that small differences don't count as changes.
                cpu_percent: usage
                    .and_then(|usage| usage.cpu_percent)
                    .map(|percent| step(percent, if percent < 5.0 { 0.5 } else { 1.0 })),
                memory_bytes: usage.map(|usage| {
                    let mebibyte = 1024.0 * 1024.0;
                    step(usage.memory_bytes as f64, mebibyte) as u64
                }),
                registered: lock(&self.0.registered).get(&status.instance).copied(),
            }
        };
        let views =
            self.0.supervisor.specs().iter().map(|spec| {
                service_view(spec, &statuses, extra, |instance| self.last_error(instance))
            });
        let views = views.collect();
        changes.publish(views);
    }

    fn last_error(&self, instance: &str) -> Option<String> {
        let lines = self.0.supervisor.recent_lines(instance, LINES_FOR_ERROR);
        last_error(&lines.unwrap_or_default())
    }

    /// Measures the CPU and memory use of the programs, unless that was done less than a second ago.
    fn sample(&self) {
        let mut sampled = lock(&self.0.sampled);
        let is_recent = |at: Instant| at.elapsed() < SAMPLE_EVERY / 2;
        if sampled.at.is_some_and(is_recent) {
            return;
        }
        let statuses = self.0.supervisor.statuses();
        let groups: Vec<u32> = statuses.iter().filter_map(|status| status.pid).collect();
        let usage = sampled.sampler.sample(&groups);
        sampled.usage = usage;
        sampled.at = Some(Instant::now());
    }
}

/// The last line that names an error, or else the last line on standard error.
fn last_error(lines: &[Line]) -> Option<String> {
    let mut newest = lines.iter().rev();
    let named = newest.find(|line| line.level() == Some(Level::Error));
    let on_stderr = || {
        let mut newest = lines.iter().rev();
        newest.find(|line| line.stream == Stream::Stderr && !line.text.trim().is_empty())
    };
    let line = named.or_else(on_stderr)?;
    Some(sanitize(line.text.trim(), false).into_owned())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_is_named_as_one_or_is_the_last_line_on_stderr() {
        use Stream::{Runner, Stderr, Stdout};
        for (lines, expected) in [
            (&[][..], None),
            (&[(Stdout, "listening")], None),
            (&[(Runner, "ERROR: exited")], None),
            (
                &[(Stderr, "first"), (Stderr, "second"), (Stderr, " ")],
                Some("second"),
            ),
            (
                &[
                    (Stdout, "ERROR one"),
                    (Stdout, "ERROR two"),
                    (Stderr, "at x.rs:1"),
                ],
                Some("ERROR two"),
            ),
            (
                &[(Stderr, "WARN slow"), (Stdout, "INFO done")],
                Some("WARN slow"),
            ),
            (&[(Stderr, "  \x1b[31mred\x1b[0m ")], Some("red")),
        ] {
            let lines: Vec<_> = lines
                .iter()
                .map(|&(stream, text)| Line {
                    stream,
                    ..Line::sample(text)
                })
                .collect();
            assert_eq!(last_error(&lines).as_deref(), expected, "{lines:?}");
        }
    }
}
