//! `waypost up`: runs a whole stack on this machine.

mod built_in;
mod dashboard;
mod detach;
mod file_stack;
mod registrations;
mod registry_choice;
mod run;
mod sample;
mod screen;
mod session;
mod sink;
mod summary;

use std::io::{self, IsTerminal};
use std::path::Path;
use std::pin::pin;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures_util::future::join_all;
use tokio::time::{Instant, timeout};
use waypost::ServiceDiscoveryClient;
use waypost::integration::shutdown_signal;
use waypost::provider::consul::ConsulProvider;
use waypost_runner::Supervisor;
use waypost_runner::control::{Control, router, socket_of_file, socket_of_sample};

use self::dashboard::Dashboard;
use self::detach::detach;
use self::file_stack::{FileStack, Selection};
use self::registrations::Registrations;
use self::registry_choice::RegistryChoice;
pub(crate) use self::run::Run;
use self::sample::Sample;
use self::screen::Screen;
use self::session::{check_not_running, open_socket};
use self::sink::{StackSink, Terminal};
use self::summary::Summary;
use super::stack::{StackArgs, log_folder, open_in_browser};
use crate::error::{CommandError, CommandResult};
use crate::terminal::{announce, announce_verbatim};

/// Start the services of waypost.toml with a registry, a gateway and a dashboard, until Ctrl-C
///
/// The stack file is waypost.toml in this folder or the nearest one above it. Without one, a sample is
/// started: a UI and AI models.
///
/// Each program runs as a separate process, and finds the others through the registry. Every log
/// line is prefixed with the name of its process. Ctrl-C stops all processes in reverse order; a
/// second Ctrl-C stops them immediately.
#[derive(Args)]
pub(crate) struct Up {
    /// Services to start, with their dependencies [default: all services without a profile]
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    #[command(flatten)]
    stack: StackArgs,
    /// Also start the services of this profile; can be repeated
    #[arg(long, value_name = "NAME")]
    profile: Vec<String>,
    /// Start only the named services, without their dependencies
    #[arg(long, requires = "services")]
    no_deps: bool,
    /// Run in the background; `waypost logs -f` follows it, `waypost down` stops it
    #[arg(short, long, conflicts_with = "check")]
    detach: bool,
    /// With --detach: return when every service is ready; fail if one can't become ready
    #[arg(long, requires = "detach")]
    wait: bool,
    /// Replace each port that is in use by a free one
    #[arg(long)]
    auto_port: bool,
    /// Registry to use: `embedded`, `consul` to start `consul agent -dev`, or the HOST:PORT of a
    /// running one [default: as in the stack file, or embedded]
    #[arg(long)]
    registry: Option<RegistryChoice>,
    /// Number of instances of a service; can be repeated
    #[arg(long, value_name = "NAME=N")]
    scale: Vec<Setting<Replicas>>,
    /// Port of a service, or of registry, gateway or dashboard; can be repeated
    #[arg(long = "port", value_name = "NAME=PORT")]
    ports: Vec<Setting<Port>>,
    /// Start everything, wait until it is healthy, and stop; succeeds if everything became healthy
    #[arg(long)]
    check: bool,
}

/// How long healthy services may take to appear in the registry.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(10);
/// The time limit for deregistering the instances at the end.
const DEREGISTER_TIMEOUT: Duration = Duration::from_secs(2);

/// `NAME=VALUE`.
#[derive(Clone, Debug)]
struct Setting<T> {
    name: String,
    value: T,
}

/// A value of a [`Setting`].
trait SettingValue: Sized {
    /// `NAME=VALUE`, as the help shows it.
    const FORM: &'static str;
    /// The rule for the value.
    const RULE: &'static str;

    fn parse(text: &str) -> Option<Self>;
}

/// A number of replicas, at least 1.
#[derive(Clone, Copy, Debug)]
struct Replicas(u32);

impl SettingValue for Replicas {
    const FORM: &'static str = "NAME=N";
    const RULE: &'static str = "N in NAME=N must be a number from 1";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().filter(|n| *n != 0).map(Self)
    }
}

/// A port.
#[derive(Clone, Copy, Debug)]
struct Port(u16);

impl SettingValue for Port {
    const FORM: &'static str = "NAME=PORT";
    const RULE: &'static str = "PORT in NAME=PORT must be a number from 1 to 65535";

    fn parse(text: &str) -> Option<Self> {
        text.parse().ok().filter(|port| *port != 0).map(Self)
    }
}

impl<T: SettingValue> FromStr for Setting<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| format!("there is no '='; use {}", T::FORM))?;
        Ok(Self {
            name: name.to_owned(),
            value: T::parse(value).ok_or(T::RULE)?,
        })
    }
}

impl Up {
    pub(super) async fn run(self) -> CommandResult {
        match self.stack.file() {
            Some(file) => self.run_file(&file).await,
            None if self.services.is_empty() && self.profile.is_empty() => self.run_sample().await,
            None => Err(self.stack.no_file()),
        }
    }

    /// Runs the stack of a file. A service that fails leaves the others running.
    async fn run_file(self, path: &Path) -> CommandResult {
        let mut shutdown = pin!(shutdown_signal());
        let selection = Selection {
            services: &self.services,
            profiles: &self.profile,
            alone: self.no_deps,
        };
        let mut plan = FileStack::read(path, self.registry, &selection)?;
        for Setting { name, value } in &self.ports {
            plan.set_port(name, value.0)?;
        }
        for Setting { name, value } in &self.scale {
            plan.set_replicas(name, value.0)?;
        }
        let socket = socket_of_file(path)?;
        if self.detach {
            check_not_running(&socket).await?;
            let log = log_folder(plan.file().directory()).join("up.out");
            return detach(&socket, &log, self.wait).await;
        }
        let mut socket = open_socket(&socket).await?;
        if self.auto_port {
            plan.choose_free_ports()?;
        }
        let stack = plan.stack()?;
        plan.check_ports(&stack)?;
        let provider = Arc::new(ConsulProvider::new(&plan.registry_address())?);

        let began = Instant::now();
        let screen = Screen::new();
        let sink = StackSink::new(Terminal::new(screen.as_ref()), plan.file().directory())?;
        let supervisor = Supervisor::start(stack, sink).map_err(CommandError::other)?;
        let control = Control::start(supervisor.clone(), plan.about());
        socket.serve(router(control.clone()));
        let registrations = Registrations::start(
            provider,
            plan.on_behalf(),
            supervisor.clone(),
            control.clone(),
        );
        let dashboard = match plan.dashboard() {
            Some(address) => {
                let (option, registry) = ("--port dashboard=PORT", plan.registry_address());
                let start =
                    Dashboard::start(address, option, control.clone(), &registry, Vec::new());
                Some(start.await?)
            }
            None => None,
        };
        if let Some(dashboard) = &dashboard {
            control.set_dashboard_link(&dashboard.link);
        }

        let mut all_ready = false;
        tokio::select! {
            ready = supervisor.settled() => {
                all_ready = ready;
                let summary = Summary {
                    stack: &control.stack(),
                    supervisor: &supervisor,
                    has_failures: screen.is_none(),
                    dashboard: dashboard.as_ref().map(|dashboard| dashboard.link.as_str()),
                    took: began.elapsed(),
                };
                match &screen {
                    Some(screen) => {
                        screen.started(&control, began.elapsed(), &format!("\n{summary}\n"));
                    }
                    None => announce_verbatim(&format!("\n{summary}\n")),
                }
                if !self.check {
                    if io::stdout().is_terminal() {
                        plan.pages().iter().for_each(|url| open_in_browser(url));
                    }
                    tokio::select! {
                        () = &mut shutdown => {}
                        () = control.down_requested() => {}
                        () = interact(screen.as_ref(), &control, &supervisor) => {}
                    }
                }
            }
            () = follow_start(screen.as_ref(), &control) => {}
            () = &mut shutdown => {}
            () = control.down_requested() => {}
        }
        finish(screen.as_ref());
        announce("stopping in reverse order; press Ctrl-C again to stop immediately");
        // Done while the registry is still running.
        let _ = timeout(DEREGISTER_TIMEOUT, registrations.end()).await;
        stop(&supervisor).await;
        Ok(if self.check && !all_ready {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        })
    }

    /// Runs the sample. If one program fails, all are stopped.
    async fn run_sample(self) -> CommandResult {
        let mut shutdown = pin!(shutdown_signal());
        let mut sample = Sample::new(self.registry.unwrap_or(RegistryChoice::Embedded));
        for Setting { name, value } in &self.ports {
            sample.set_port(name, value.0)?;
        }
        for Setting { name, value } in &self.scale {
            sample.set_replicas(name, value.0)?;
        }
        let socket = socket_of_sample(sample.gateway_port());
        if self.detach {
            check_not_running(&socket).await?;
            return detach(&socket, &socket.with_extension("out"), self.wait).await;
        }
        let mut socket = open_socket(&socket).await?;
        let stack = sample.stack()?;
        stack.check_ports().map_err(CommandError::other)?;
        sample.check_dashboard_port()?;
        sample.registry().check_localhost()?;
        let began = Instant::now();
        let screen = Screen::new();
        let terminal = Terminal::new(screen.as_ref());
        let supervisor = Supervisor::start(stack, terminal).map_err(CommandError::other)?;
        let control = Control::start(supervisor.clone(), sample.about());
        socket.serve(router(control.clone()));
        let dashboard = Dashboard::start(
            sample.dashboard_address(),
            "--port ui=PORT",
            control.clone(),
            &sample.registry().address(),
            Sample::pages(),
        )
        .await?;

        let ready = tokio::select! {
            ready = supervisor.ready() => ready,
            () = follow_start(screen.as_ref(), &control) => Ok(()),
            () = &mut shutdown => {
                finish(screen.as_ref());
                stop(&supervisor).await;
                return Ok(ExitCode::SUCCESS);
            }
        };
        if let Err(error) = ready {
            finish(screen.as_ref());
            stop(&supervisor).await;
            return Err(CommandError::other(error));
        }
        let is_stopping = tokio::select! {
            () = all_discovered(&sample) => false,
            () = &mut shutdown => true,
        };
        let addresses = format!("\n  Dashboard     {}\n{sample}\n\n", dashboard.link);
        match &screen {
            Some(screen) => screen.started(&control, began.elapsed(), &addresses),
            None => announce_verbatim(&addresses),
        }
        if !self.check && !is_stopping {
            tokio::select! {
                () = &mut shutdown => {}
                () = control.down_requested() => {}
                () = interact(screen.as_ref(), &control, &supervisor) => {}
            }
        }
        finish(screen.as_ref());
        announce("");
        announce("stopping in reverse order; press Ctrl-C again to stop immediately");
        stop(&supervisor).await;
        Ok(ExitCode::SUCCESS)
    }
}

/// Draws the table of a screen until the services have started; never returns.
async fn follow_start(screen: Option<&Screen>, control: &Control) {
    match screen {
        Some(screen) => screen.follow_start(control).await,
        None => std::future::pending().await,
    }
}

/// Removes the footer of a screen.
fn finish(screen: Option<&Screen>) {
    if let Some(screen) = screen {
        screen.finish();
    }
}

/// Returns when the user of a screen stops the stack.
async fn interact(screen: Option<&Screen>, control: &Control, supervisor: &Supervisor) {
    match screen {
        Some(screen) => screen.interact(control, supervisor).await,
        None => std::future::pending().await,
    }
}

/// Waits until every service is found in the registry, which may be some time after it is healthy.
/// Gives up after [`DISCOVERY_TIMEOUT`], since the stack can be used even if the registry is slow.
async fn all_discovered(sample: &Sample) {
    let Ok(provider) = ConsulProvider::new(&sample.registry().address()) else {
        return;
    };
    let client = ServiceDiscoveryClient::new(Arc::new(provider));
    let waits = sample.registered_names().map(|name| client.wait_for(name));
    let _ = timeout(DISCOVERY_TIMEOUT, join_all(waits)).await;
}

/// Stops all processes; immediately if a second signal arrives.
async fn stop(supervisor: &Supervisor) {
    tokio::select! {
        () = supervisor.shutdown() => {}
        () = shutdown_signal() => supervisor.shutdown().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_setting_has_a_name_and_a_number_in_its_range() {
        let port = |text: &str| text.parse().map(|it: Setting<Port>| (it.name, it.value.0));
        let scale = |text: &str| {
            text.parse()
                .map(|it: Setting<Replicas>| (it.name, it.value.0))
        };
        assert_eq!(port("web=65535"), Ok(("web".to_owned(), 65535)));
        assert_eq!(scale("web=1"), Ok(("web".to_owned(), 1)));
        for wrong in ["web=0", "web=65536", "web=", "web=x", "web=1=2"] {
            let expected = "PORT in NAME=PORT must be a number from 1 to 65535";
            assert_eq!(port(wrong).unwrap_err(), expected, "{wrong}");
        }
        for wrong in ["web=0", "web=-1", "web="] {
            let expected = "N in NAME=N must be a number from 1";
            assert_eq!(scale(wrong).unwrap_err(), expected, "{wrong}");
        }
        assert_eq!(port("web").unwrap_err(), "there is no '='; use NAME=PORT");
        assert_eq!(scale("web").unwrap_err(), "there is no '='; use NAME=N");
    }
}
