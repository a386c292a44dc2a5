//! `waypost up`: runs the whole stack on this machine.

mod plan;
mod registry_choice;

use std::pin::pin;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures_util::future::join_all;
use tokio::time::timeout;
use waypost::ServiceDiscoveryClient;
use waypost::integration::shutdown_signal;
use waypost::provider::consul::ConsulProvider;
use waypost_runner::{Console, Supervisor};

use self::plan::Plan;
use self::registry_choice::RegistryChoice;
use crate::error::{CommandError, CommandResult};
use crate::terminal::{announce, announce_verbatim};

/// Start a registry, the gateway, the UI and the AI models, and run them until Ctrl-C
///
/// Each program runs as a separate process, and finds the others through the registry. Every log
/// line is prefixed with the name of its process. Ctrl-C stops all processes in reverse order; a
/// second Ctrl-C stops them immediately.
#[derive(Args)]
pub(crate) struct Up {
    /// Registry to use: `embedded`, `consul` to start `consul agent -dev`, or the HOST:PORT of a
    /// running one
    #[arg(long, default_value = "embedded")]
    registry: RegistryChoice,
    /// Number of instances of gateway, ui or ai-models; can be repeated
    #[arg(long, value_name = "NAME=N")]
    scale: Vec<Setting<Replicas>>,
    /// Port of registry, gateway, ui or ai-models; can be repeated
    #[arg(long = "port", value_name = "NAME=PORT")]
    ports: Vec<Setting<Port>>,
    /// Start everything, wait until it is healthy, and stop; succeeds if everything became healthy
    #[arg(long)]
    check: bool,
}

/// How long healthy services may take to appear in the registry.
const DISCOVERY_TIMEOUT: Duration = Duration::from_secs(10);

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
        let mut shutdown = pin!(shutdown_signal());
        let mut plan = Plan::new(self.registry);
        for Setting { name, value } in &self.ports {
            plan.set_port(name, value.0)?;
        }
        for Setting { name, value } in &self.scale {
            plan.set_replicas(name, value.0)?;
        }
        let stack = plan.stack()?;
        stack.check_ports().map_err(CommandError::other)?;
        plan.check_localhost()?;
        let supervisor =
            Supervisor::start(stack, Console::stdout()).map_err(CommandError::other)?;

        let ready = tokio::select! {
            ready = supervisor.ready() => ready,
            () = &mut shutdown => {
                stop(&supervisor).await;
                return Ok(ExitCode::SUCCESS);
            }
        };
        if let Err(error) = ready {
            stop(&supervisor).await;
            return Err(CommandError::other(error));
        }
        let is_stopping = tokio::select! {
            () = all_discovered(&plan) => false,
            () = &mut shutdown => true,
        };
        announce_verbatim(&format!("\n{plan}\n\n"));
        if !self.check && !is_stopping {
            shutdown.await;
        }
        announce("");
        announce("stopping in reverse order; press Ctrl-C again to stop immediately");
        stop(&supervisor).await;
        Ok(ExitCode::SUCCESS)
    }
}

/// Waits until every service is found in the registry: a service can be healthy some time before
/// that. Gives up after a while, since the stack can be used even if the registry is slow.
async fn all_discovered(plan: &Plan) {
    let Ok(provider) = ConsulProvider::new(&plan.registry_address()) else {
        return;
    };
    let client = ServiceDiscoveryClient::new(Arc::new(provider));
    let waits = plan.registered_names().map(|name| client.wait_for(name));
    let _ = timeout(DISCOVERY_TIMEOUT, join_all(waits)).await;
}

/// Stops all processes; immediately if a second signal arrives.
async fn stop(supervisor: &Supervisor) {
    tokio::select! {
        () = supervisor.shutdown() => {}
        () = shutdown_signal() => supervisor.shutdown().await,
    }
}
