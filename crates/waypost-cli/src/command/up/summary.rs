//! The summary that `waypost up` prints when everything has started or failed.

use std::fmt;
use std::time::Duration;

use waypost_runner::Supervisor;
use waypost_runner::control::{ServiceView, StackView};

use crate::terminal::escaped;

/// The number of last lines of a failed service that are shown.
const LINES: usize = 5;

/// The addresses and the problems. Text from programs is escaped.
pub(super) struct Summary<'a> {
    pub(super) stack: &'a StackView,
    pub(super) supervisor: &'a Supervisor,
    /// Whether problems are shown.
    pub(super) has_failures: bool,
    /// The link to the dashboard.
    pub(super) dashboard: Option<&'a str>,
    pub(super) took: Duration,
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stack = self.stack;
        let started = stack.services.iter().filter(|service| service.wanted > 0);
        let (good, bad): (Vec<_>, Vec<_>) = started.partition(|it| it.ready == it.wanted);
        for service in bad.iter().filter(|_| self.has_failures) {
            self.failed(service, f)?;
        }
        if let Some(dashboard) = self.dashboard {
            writeln!(f, "  Dashboard  {dashboard}")?;
        }
        if let Some(gateway) = &stack.gateway {
            writeln!(f, "  Gateway    {gateway}/")?;
        }
        writeln!(f, "  Registry   {}/ui/", stack.registry)?;
        let took = format!("{:.1} s", self.took.as_secs_f64());
        let total = good.len() + bad.len();
        match bad.len() {
            0 => writeln!(f, "  {total} ready in {took}; Ctrl-C stops all"),
            _ => writeln!(
                f,
                "  {} of {total} ready after {took}; Ctrl-C stops all",
                good.len()
            ),
        }
    }
}

impl Summary<'_> {
    fn failed(&self, service: &ServiceView, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, state) = (&service.name, service.state.name());
        let why = service.why.as_deref().unwrap_or("unknown reason");
        writeln!(f, "  {name} is {state}: {}", escaped(why))?;
        // A service that waits for another one has no output.
        if service.state.is_trouble() {
            let failed = service.instances.iter().find(|it| it.state.is_trouble());
            let instance = failed.map_or(name, |instance| &instance.id);
            let lines = self.supervisor.recent_lines(instance, LINES);
            for line in lines.unwrap_or_default() {
                writeln!(f, "      {}", escaped(&line.text))?;
            }
        }
        if let Some(advice) = &service.advice {
            writeln!(f, "      → {}", escaped(advice))?;
        }
        writeln!(f)
    }
}
