//! `waypost ps`

use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Args;
use serde_json::json;
use waypost_runner::control::{InstanceView, ServiceState, ServiceView, StackView};

use super::stack_args::{StackArgs, client_error};
use crate::command::output_args::{Format, OutputArgs};
use crate::error::{CommandError, CommandResult};
use crate::output::rounded;
use crate::style::{Column, Table, Text, Tone};
use crate::suggest::closest;
use crate::terminal::{print_json, print_line, print_verbatim};

/// Show the state of the services of the running stack, and the reasons
#[derive(Args)]
pub(crate) struct Ps {
    /// Only these services
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Also show each change, until Ctrl-C
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    stack: StackArgs,
}

impl Ps {
    pub(super) async fn run(self) -> CommandResult {
        let mut client = self.stack.connect().await?;
        let stack: StackView = client.get("/api/stack").await.map_err(client_error)?;
        self.check_names(&stack)?;
        if !self.watch {
            self.print(stack)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut events = client.events("/api/events").await.map_err(client_error)?;
        let mut stack = stack;
        while let Some(event) = events.next().await.map_err(client_error)? {
            match event.kind.as_str() {
                "snapshot" => {
                    stack = serde_json::from_str(&event.data).map_err(CommandError::other)?
                }
                "service" => {
                    let changed: ServiceView =
                        serde_json::from_str(&event.data).map_err(CommandError::other)?;
                    let mut services = stack.services.iter_mut();
                    match services.find(|it| it.name == changed.name) {
                        Some(service) => *service = changed,
                        None => stack.services.push(changed),
                    }
                }
                _ => continue,
            }
            self.print(stack.clone())?;
            if self.output.format() == Format::Table {
                print_verbatim("\n")?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }

    fn check_names(&self, stack: &StackView) -> Result<(), CommandError> {
        let known = || stack.services.iter().map(|service| service.name.as_str());
        let Some(unknown) = self
            .services
            .iter()
            .find(|name| !known().any(|it| it == *name))
        else {
            return Ok(());
        };
        let advice = match closest(unknown, known()) {
            Some(meant) => format!("did you mean {meant}?"),
            None => format!(
                "the services are {}",
                known().collect::<Vec<_>>().join(", ")
            ),
        };
        let message = format!("the stack has no service {unknown:?}; {advice}");
        Err(CommandError::NothingThere(message))
    }

    fn print(&self, mut stack: StackView) -> Result<(), CommandError> {
        if !self.services.is_empty() {
            stack
                .services
                .retain(|service| self.services.contains(&service.name));
        }
        let format = self.output.format();
        match format {
            Format::Json => return print_json(&json!(stack)),
            Format::Name => {
                return stack
                    .services
                    .iter()
                    .try_for_each(|it| print_line(&it.name));
            }
            Format::Table | Format::Wide => {}
        }
        let is_wide = format == Format::Wide;
        let mut table = Table::new(
            &[
                Column::new("SERVICE"),
                Column::new("STATE"),
                Column::new("READY"),
                Column::new("ADDRESS"),
                Column::new("UPTIME"),
                Column::number("RESTARTS"),
                Column::number("CPU"),
                Column::number("MEM"),
                Column::number("PID").wide_only(),
                Column::new("URL").wide_only(),
                Column::new("WHY").can_shrink(),
            ],
            is_wide,
        );
        for service in &stack.services {
            row(&mut table, service, is_wide);
        }
        table.print()
    }
}

fn row(table: &mut Table, service: &ServiceView, is_wide: bool) {
    let pids: Vec<String> = pids(&service.instances);
    table.row([
        Text::new(&service.name),
        state(service.state),
        Text::new(format_args!("{}/{}", service.ready, service.wanted)),
        Text::or_none(service.address.as_deref()),
        Text::or_none(uptime(service)),
        Text::new(service.restarts),
        Text::or_none(service.cpu_percent.map(|percent| format!("{percent} %"))),
        Text::or_none(service.memory_bytes.map(memory)),
        Text::or_none(Some(pids.join(","))),
        Text::or_none(service.url.as_deref()),
        Text::or_none(why(service)),
    ]);
    if is_wide && service.instances.len() > 1 {
        for instance in &service.instances {
            table.row([
                Text::new(format_args!("  {}", instance.id)),
                state(instance.state),
                Text::none(),
                Text::or_none(instance.port.map(|port| format!("localhost:{port}"))),
                Text::or_none(since(instance.started_at.as_deref())),
                Text::new(instance.restarts),
                Text::or_none(instance.cpu_percent.map(|percent| format!("{percent} %"))),
                Text::or_none(instance.memory_bytes.map(memory)),
                Text::or_none(instance.pid),
                Text::none(),
                Text::or_none(instance.why.as_deref()),
            ]);
        }
    }
}

/// The reason for the state, and the last output of a program that has failed.
fn why(service: &ServiceView) -> Option<String> {
    match (&service.why, &service.last_error) {
        (Some(why), Some(error)) => Some(format!("{why}: {error}")),
        (why, _) => why.clone(),
    }
}

fn pids(instances: &[InstanceView]) -> Vec<String> {
    let pids = instances.iter().filter_map(|instance| instance.pid);
    pids.map(|pid| pid.to_string()).collect()
}

/// A state with a symbol, so that it can be recognised without colours.
pub(super) fn state(state: ServiceState) -> Text {
    let (tone, sign) = match state {
        ServiceState::Ready | ServiceState::Running => (Tone::Good, "●"),
        ServiceState::Completed => (Tone::Good, "✓"),
        ServiceState::CrashLooping | ServiceState::Failed | ServiceState::Unreachable => {
            (Tone::Bad, "✗")
        }
        ServiceState::Degraded => (Tone::Caution, "▲"),
        ServiceState::Building | ServiceState::Starting | ServiceState::Waiting => {
            (Tone::Plain, "◌")
        }
        ServiceState::Stopping | ServiceState::Stopped | ServiceState::Disabled => {
            (Tone::Faint, "○")
        }
    };
    Text::toned(tone, format_args!("{sign} {}", state.name()))
}

/// How long the service has been ready.
fn uptime(service: &ServiceView) -> Option<String> {
    let is_up = matches!(
        service.state,
        ServiceState::Ready | ServiceState::Running | ServiceState::Degraded
    );
    let oldest = service
        .instances
        .iter()
        .filter_map(|it| it.started_at.as_deref())
        .min();
    since(oldest.filter(|_| is_up))
}

fn since(time: Option<&str>) -> Option<String> {
    let time = humantime::parse_rfc3339(time?).ok()?;
    let elapsed = SystemTime::now()
        .duration_since(time)
        .unwrap_or(Duration::ZERO);
    Some(rounded(elapsed))
}

fn memory(bytes: u64) -> String {
    format!("{}M", bytes / (1024 * 1024))
}
