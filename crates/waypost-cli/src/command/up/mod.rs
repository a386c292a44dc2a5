mod plan;

use std::fmt;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use futures_util::future::join_all;
use tokio::time::timeout;
use waypost::integration::shutdown_signal;
use waypost::{ConsulProvider, ServiceDiscoveryClient};
use waypost_runner::{Console, Running};

use self::plan::{Plan, RegistryChoice};
use super::Outcome;
use crate::failure::Failure;

/// Start a registry, the gateway, the UI and the AI models, until Ctrl-C
///
/// Each is a process of its own, registered and found by name. Their logs follow with the name in
/// front. Ctrl-C ends everything in reverse order, a second one at once.
#[derive(Args)]
pub(crate) struct Up {
    /// The registry: `embedded`, `consul` (starts `consul agent -dev`), or HOST:PORT of one that runs
    #[arg(long, default_value = "embedded")]
    registry: RegistryChoice,
    /// Run so many instances of a service; may be given several times
    #[arg(long, value_name = "NAME=N")]
    scale: Vec<Setting<u32>>,
    /// Another port than the usual one; names: registry, gateway, ui, ai-models
    #[arg(long = "port", value_name = "NAME=PORT")]
    ports: Vec<Setting<u16>>,
    /// Start, wait until all is healthy, and end again: 0 if all became healthy
    #[arg(long)]
    check: bool,
}

/// How long the services may take to be found once they are healthy.
const FOUND_WITHIN: Duration = Duration::from_secs(10);

/// `NAME=VALUE`.
#[derive(Clone, Debug)]
struct Setting<T> {
    name: String,
    value: T,
}

impl<T: FromStr<Err: fmt::Display>> FromStr for Setting<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, value) = text
            .split_once('=')
            .ok_or_else(|| format!("{text:?} has no '='; write it as NAME=VALUE"))?;
        let value = value
            .parse()
            .map_err(|fault| format!("{value:?}: {fault}"))?;
        Ok(Self {
            name: name.to_owned(),
            value,
        })
    }
}

impl Up {
    pub(super) async fn run(self) -> Outcome {
        let mut plan = Plan::new(self.registry)?;
        for Setting { name, value } in &self.ports {
            plan.set_port(name, *value)?;
        }
        for Setting { name, value } in &self.scale {
            plan.set_replicas(name, *value)?;
        }
        let stack = plan.stack()?;
        let running = stack.start(Console::stdout()).map_err(Failure::other)?;

        let ready = tokio::select! {
            ready = running.ready() => ready,
            () = shutdown_signal() => {
                end(&running).await;
                return Ok(ExitCode::SUCCESS);
            }
        };
        if let Err(error) = ready {
            end(&running).await;
            return Err(Failure::other(error));
        }
        tokio::select! {
            () = all_found(&plan) => {}
            () = shutdown_signal() => {}
        }
        println!("\n{plan}\n");
        if !self.check {
            shutdown_signal().await;
        }
        println!("\nending in reverse order; Ctrl-C again ends all at once");
        end(&running).await;
        Ok(ExitCode::SUCCESS)
    }
}

/// Waits until the registry knows of each service, since one that is healthy may not be found yet.
/// A registry that is slow to say so keeps nobody from working, so the wait has an end.
async fn all_found(plan: &Plan) {
    let Ok(provider) = ConsulProvider::new(&plan.registry_address()) else {
        return;
    };
    let client = ServiceDiscoveryClient::new(Arc::new(provider));
    let waits = plan.registered_names().map(|name| client.wait_for(name));
    let _ = timeout(FOUND_WITHIN, join_all(waits)).await;
}

/// Ends everything; a second signal means now.
async fn end(running: &Running) {
    tokio::select! {
        () = running.shutdown() => {}
        () = shutdown_signal() => running.shutdown().await,
    }
}
