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
        table(&stack.services, format == Format::Wide, SystemTime::now()).print()
    }
}

/// The table of the services; a wide one has a row for each of several instances as well.
fn table(services: &[ServiceView], is_wide: bool, now: SystemTime) -> Table {
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
    for service in services {
        row(&mut table, service, is_wide, now);
    }
    table
}

fn row(table: &mut Table, service: &ServiceView, is_wide: bool, now: SystemTime) {
    let pids: Vec<String> = pids(&service.instances);
    table.row([
        Text::new(&service.name),
        state(service.state),
        Text::new(format_args!("{}/{}", service.ready, service.wanted)),
        Text::or_none(service.address.as_deref()),
        Text::or_none(uptime(service, now)),
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
                Text::or_none(since(instance.started_at.as_deref(), now)),
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
fn uptime(service: &ServiceView, now: SystemTime) -> Option<String> {
    let is_up = matches!(
        service.state,
        ServiceState::Ready | ServiceState::Running | ServiceState::Degraded
    );
    let oldest = service
        .instances
        .iter()
        .filter_map(|it| it.started_at.as_deref())
        .min();
    since(oldest.filter(|_| is_up), now)
}

fn since(time: Option<&str>, now: SystemTime) -> Option<String> {
    let time = humantime::parse_rfc3339(time?).ok()?;
    let elapsed = now.duration_since(time).unwrap_or(Duration::ZERO);
    Some(rounded(elapsed))
}

fn memory(bytes: u64) -> String {
    format!("{}M", bytes / (1024 * 1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(state: &str, more: serde_json::Value) -> ServiceView {
        let mut service = json!({
            "name": "web", "kind": "process", "state": state, "since": "2026-01-31T12:00:00Z",
            "ready": 1, "wanted": 2, "restarts": 0, "after": [], "uses": [], "links": {},
            "profiles": [], "instances": [],
        });
        for (key, value) in more.as_object().unwrap() {
            service[key] = value.clone();
        }
        serde_json::from_value(service).unwrap()
    }

    fn instance(id: &str, started_at: Option<&str>) -> serde_json::Value {
        json!({
            "id": id, "state": "ready", "since": "2026-01-31T12:00:00Z", "pid": 7, "port": 4100,
            "restarts": 2, "cpu_percent": 1.5, "memory_bytes": 3 * 1024 * 1024 - 1,
            "why": "for a reason", "started_at": started_at,
        })
    }

    fn lines(service: &ServiceView, is_wide: bool) -> Vec<String> {
        let now = humantime::parse_rfc3339("2026-01-31T13:00:05Z").unwrap();
        table(std::slice::from_ref(service), is_wide, now).lines(None, false)
    }

    /// The cells of a row, which are separated by at least two spaces.
    fn cells(line: &str) -> Vec<&str> {
        line.split("  ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty())
            .collect()
    }

    #[test]
    fn a_service_has_a_row_and_in_a_wide_table_each_of_several_instances_too() {
        let first = instance("web-1", Some("2026-01-31T13:00:00Z"));
        let second = instance("web-2", Some("2026-01-31T12:30:00Z"));
        let more = json!({
            "address": "localhost:4100", "restarts": 3, "cpu_percent": 2.0,
            "memory_bytes": 5 * 1024 * 1024, "url": "http://localhost:8000/web/",
            "why": "exited", "last_error": "no database", "instances": [first, second],
        });
        let web = service("degraded", more);
        let narrow = lines(&web, false);
        assert_eq!(narrow.len(), 2, "{narrow:#?}");
        let head = "SERVICE STATE READY ADDRESS UPTIME RESTARTS CPU MEM WHY";
        assert_eq!(cells(&narrow[0]).join(" "), head);
        assert_eq!(
            cells(&narrow[1]),
            [
                "web",
                "▲ degraded",
                "1/2",
                "localhost:4100",
                "30m 5s",
                "3",
                "2 %",
                "5M",
                "exited: no database",
            ]
        );
        let wide = lines(&web, true);
        assert_eq!(wide.len(), 4, "{wide:#?}");
        let ends: Vec<_> = cells(&wide[1]).into_iter().skip(8).collect();
        assert_eq!(
            ends,
            ["7,7", "http://localhost:8000/web/", "exited: no database"]
        );
        assert_eq!(
            cells(&wide[2]),
            [
                "web-1",
                "● ready",
                "-",
                "localhost:4100",
                "5s",
                "2",
                "1.5 %",
                "2M",
                "7",
                "-",
                "for a reason",
            ]
        );
    }

    #[test]
    fn a_single_instance_has_no_row_and_missing_values_are_dashes() {
        let one = service(
            "stopped",
            json!({ "instances": [instance("web", Some("2026-01-31T12:00:00Z"))] }),
        );
        let wide = lines(&one, true);
        assert_eq!(wide.len(), 2, "{wide:#?}");
        // It is not up.
        let expected = [
            "web",
            "○ stopped",
            "1/2",
            "-",
            "-",
            "0",
            "-",
            "-",
            "7",
            "-",
            "-",
        ];
        assert_eq!(cells(&wide[1]), expected);
        for (state, uptime) in [("ready", "1h"), ("running", "1h"), ("failed", "-")] {
            let one = service(
                state,
                json!({ "instances": [instance("web", Some("2026-01-31T12:00:05Z"))] }),
            );
            assert_eq!(cells(&lines(&one, false)[1])[4], uptime, "{state}");
        }
        // The clock was set back.
        let early = service(
            "ready",
            json!({ "instances": [instance("web", Some("2026-01-31T14:00:00Z"))] }),
        );
        assert_eq!(cells(&lines(&early, false)[1])[4], "0s");
    }

    #[test]
    fn each_state_has_a_sign_of_its_kind() {
        for (sign, states) in [
            ("●", &["ready", "running"][..]),
            ("✓", &["completed"]),
            ("✗", &["crash-looping", "failed", "unreachable"]),
            ("▲", &["degraded"]),
            ("◌", &["building", "starting", "waiting"]),
            ("○", &["stopping", "stopped", "disabled"]),
        ] {
            for name in states {
                let line = &lines(&service(name, json!({})), false)[1];
                assert_eq!(cells(line)[1], format!("{sign} {name}"));
            }
        }
    }

    #[test]
    fn the_reason_has_the_last_error_if_there_is_one() {
        for (why, error, expected) in [
            (Some("exited"), Some("no mail"), Some("exited: no mail")),
            (Some("exited"), None, Some("exited")),
            (None, Some("no mail"), None),
            (None, None, None),
        ] {
            let service = service("failed", json!({ "why": why, "last_error": error }));
            assert_eq!(super::why(&service).as_deref(), expected);
        }
    }
}
