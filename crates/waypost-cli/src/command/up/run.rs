//! `waypost run`

use std::collections::BTreeMap;
use std::pin::pin;
use std::process::ExitCode;

use clap::Args;
use tokio::time::timeout;
use waypost::ServiceName;
use waypost::integration::shutdown_signal;
use waypost_runner::control::{About, Control};
use waypost_runner::stack_file::Registration;
use waypost_runner::{
    Console, ExitStatus, InstanceState, Probe, RestartRule, ServiceSpec, Stack, Supervisor,
    VariableSource,
};

use super::file_stack::OnBehalf;
use super::registrations::Registrations;
use super::{DEREGISTER_TIMEOUT, stop};
use crate::command::registry_args::RegistryArgs;
use crate::error::{CommandError, CommandResult};

/// Run one program and keep it registered, without a stack file
///
/// Sets PORT for the program, and replaces {port} in its arguments. The program is registered with the running
/// registry until it ends, and is healthy there while it is ready. This command exits with its exit code.
#[derive(Args)]
pub(crate) struct Run {
    /// Service name
    #[arg(value_name = "NAME")]
    name: ServiceName,
    /// The program and its arguments
    #[arg(value_name = "COMMAND", last = true, required = true)]
    command: Vec<String>,
    /// Port of the program [default: any free one]
    #[arg(long, default_value_t = 0, hide_default_value = true)]
    port: u16,
    /// HTTP path that responds with 2xx once the program is ready [default: it is ready once it accepts
    /// connections]
    #[arg(long, value_name = "PATH")]
    health: Option<String>,
    #[command(flatten)]
    registry: RegistryArgs,
}

impl Run {
    pub(crate) async fn run(self) -> CommandResult {
        let mut shutdown = pin!(shutdown_signal());
        let provider = self.registry.provider()?;
        let name = self.name.as_str();
        let mut words = self.command.iter();
        let program = words.next().map(String::as_str).unwrap_or_default();
        let spec = ServiceSpec::new(name, program)
            .args(words)
            .port(self.port)
            .variable("PORT", "{port}", VariableSource::Waypost)
            .restart(RestartRule::Never)
            .ready(match &self.health {
                Some(path) => Probe::http(path),
                None => Probe::tcp(),
            });
        let stack = Stack::builder()
            .service(spec)
            .build()
            .map_err(CommandError::other)?;
        let supervisor =
            Supervisor::start(stack, Console::stdout()).map_err(CommandError::other)?;
        let about = About {
            name: name.to_owned(),
            file: None,
            directory: std::env::current_dir().unwrap_or_default(),
            registry: provider.describe().to_string(),
            gateway: None,
            dashboard: None,
        };
        let control = Control::start(supervisor.clone(), about);
        let on_behalf = OnBehalf {
            details: Registration::default(),
            host: None,
        };
        let services = BTreeMap::from([(name.to_owned(), on_behalf)]);
        let registrations = Registrations::start(provider, services, supervisor.clone(), control);
        tokio::select! {
            () = ended(&supervisor) => {}
            () = &mut shutdown => {}
        }
        let _ = timeout(DEREGISTER_TIMEOUT, registrations.end()).await;
        stop(&supervisor).await;
        let statuses = supervisor.statuses();
        let exit = statuses.first().and_then(|status| status.exit.as_ref());
        Ok(exit_code(exit))
    }
}

/// Waits until the program has ended.
async fn ended(supervisor: &Supervisor) {
    let mut events = supervisor.events();
    let has_ended = || {
        let statuses = supervisor.statuses();
        statuses
            .iter()
            .all(|status| matches!(status.state, InstanceState::Stopped | InstanceState::Failed))
    };
    while !has_ended() {
        if events.next().await.is_none() {
            return;
        }
    }
}

/// The exit code for the end of the program. SIGTERM, by which this command stops it, counts as success, and
/// any other signal as a failure.
fn exit_code(exit: Option<&ExitStatus>) -> ExitCode {
    match exit {
        Some(ExitStatus::Code(code)) => ExitCode::from(u8::try_from(*code).unwrap_or(1)),
        Some(ExitStatus::Signal(signal)) if signal == "TERM" => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_is_that_of_the_program_unless_it_was_killed() {
        let signal = |name: &str| Some(ExitStatus::Signal(name.to_owned()));
        for (exit, code) in [
            (Some(ExitStatus::Code(0)), 0),
            (Some(ExitStatus::Code(7)), 7),
            (Some(ExitStatus::Code(255)), 255),
            (Some(ExitStatus::Code(256)), 1),
            (signal("TERM"), 0),
            (signal("KILL"), 1),
            (None, 1),
        ] {
            assert_eq!(exit_code(exit.as_ref()), ExitCode::from(code), "{exit:?}");
        }
    }
}
