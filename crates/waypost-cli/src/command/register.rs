//! `waypost register`

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::time::timeout;
use waypost::{
    Check, Error, Host, Registrar, RegistrationState, ServiceName, ServiceRegistration, Weight,
};

use super::registry_args::RegistryArgs;
use crate::error::{CommandError, CommandResult};
use crate::output::print_json;

/// Register an instance
///
/// The instance stays registered until `waypost deregister`; with --hold, until Ctrl-C.
#[derive(Args)]
pub(crate) struct Register {
    /// Service name
    service: ServiceName,
    /// Port of the instance
    #[arg(long)]
    port: u16,
    /// Address of the instance [default: the local address that reaches the registry]
    #[arg(long)]
    address: Option<String>,
    /// Instance ID [default: derived from the service name, address and port]
    #[arg(long)]
    id: Option<String>,
    /// Version of the instance
    #[arg(long = "service-version", value_name = "VERSION")]
    version: Option<String>,
    /// Tag; can be repeated
    #[arg(long)]
    tag: Vec<String>,
    /// Metadata; can be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    meta: Vec<(String, String)>,
    /// Relative share of the traffic, 0 to 65535
    #[arg(long, default_value_t = Weight::default())]
    weight: Weight,
    /// Have the registry check this HTTP path of the instance
    #[arg(long, value_name = "PATH", group = "check")]
    check_http: Option<String>,
    /// Have the registry check that the instance accepts TCP connections
    #[arg(long, group = "check")]
    check_tcp: bool,
    /// Send heartbeats; the check fails this long after the last one; requires --hold
    #[arg(long, value_name = "TIME", group = "check", requires = "hold", value_parser = humantime::parse_duration)]
    check_ttl: Option<Duration>,
    /// Interval between the registry's checks
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// Keep the instance registered until Ctrl-C, then deregister it
    #[arg(long)]
    hold: bool,
    #[command(flatten)]
    registry: RegistryArgs,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} has no '='; use KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Register {
    pub(super) async fn run(self) -> CommandResult {
        let provider = self.registry.provider()?;
        let registrar = Registrar::start(Arc::clone(&provider), self.registration()?)?;
        let limit = self.registry.timeout;
        if timeout(limit, registrar.registered()).await.is_err() {
            let error = match registrar.state() {
                RegistrationState::Pending(Some(error)) => Error::from(error).into(),
                _ => CommandError::Other(format!("the registry did not respond within {limit:?}")),
            };
            registrar.abandon();
            return Err(error);
        }
        let instance = Arc::clone(registrar.registration().instance());
        if self.registry.json {
            print_json(&json!({ "registered": *instance }));
        } else {
            println!("{}", instance.id());
        }
        if self.hold {
            tokio::signal::ctrl_c().await?;
            registrar.deregister().await?;
        } else {
            registrar.abandon();
        }
        Ok(ExitCode::SUCCESS)
    }

    fn registration(&self) -> Result<ServiceRegistration, CommandError> {
        let mut registration = ServiceRegistration::new(&self.service, self.port)?
            .tags(self.tag.iter().cloned())
            .weight(self.weight);
        for (key, value) in &self.meta {
            registration = registration.meta(key, value);
        }
        if let Some(address) = &self.address {
            registration = registration.host(address.parse::<Host>()?);
        }
        if let Some(id) = &self.id {
            registration = registration.id(id.as_str());
        }
        if let Some(version) = &self.version {
            registration = registration.version(version);
        }
        if let Some(path) = &self.check_http {
            registration = registration.check(Check::http(path).every(self.interval));
        }
        if self.check_tcp {
            registration = registration.check(Check::tcp().every(self.interval));
        }
        if let Some(ttl) = self.check_ttl {
            registration = registration.check(Check::ttl(ttl));
        }
        Ok(registration)
    }
}
