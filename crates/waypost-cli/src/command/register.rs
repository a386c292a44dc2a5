use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use waypost::{
    Check, Host, Registrar, RegistrationState, ServiceName, ServiceRegistration, Weight,
};

use super::Outcome;
use super::asking::Asking;
use crate::failure::Failure;
use crate::output::print_json;

/// Registers an instance and leaves it registered; with `--hold`, as long as the command runs.
#[derive(Args)]
pub(crate) struct Register {
    /// The service's name
    service: ServiceName,
    /// The instance's port
    #[arg(long)]
    port: u16,
    /// The address under which others reach it [default: the one from which we reach the registry]
    #[arg(long)]
    address: Option<String>,
    /// Its id [default: made of name, host and port]
    #[arg(long)]
    id: Option<String>,
    /// Its version
    #[arg(long = "service-version", value_name = "VERSION")]
    version: Option<String>,
    /// A tag; may be given several times
    #[arg(long)]
    tag: Vec<String>,
    /// A value of its metadata; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    meta: Vec<(String, String)>,
    /// Its share of the traffic, 0 to 65535
    #[arg(long, default_value_t = Weight::default())]
    weight: Weight,
    /// Let the registry ask this path of the instance
    #[arg(long, value_name = "PATH", group = "check")]
    check_http: Option<String>,
    /// Let the registry open connections to the instance
    #[arg(long, group = "check")]
    check_tcp: bool,
    /// Report by heartbeats as long as this command runs; needs --hold
    #[arg(long, value_name = "TIME", group = "check", requires = "hold", value_parser = humantime::parse_duration)]
    check_ttl: Option<Duration>,
    /// How often the registry checks
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// Stay, keep it registered, and take it back at Ctrl-C
    #[arg(long)]
    hold: bool,
    #[command(flatten)]
    asking: Asking,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or_else(|| format!("{text:?} has no '='; write it as KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

impl Register {
    pub(super) async fn run(self) -> Outcome {
        let provider = self.asking.provider()?;
        let registrar = Registrar::start(Arc::clone(&provider), self.registration()?)?;
        let registered = tokio::time::timeout(self.asking.timeout(), registrar.registered());
        if registered.await.is_err() {
            let reason = match registrar.state() {
                RegistrationState::Pending(Some(error)) => waypost::Error::from(error).into(),
                _ => Failure::other(format!("no answer within {:?}", self.asking.timeout())),
            };
            registrar.abandon();
            return Err(reason);
        }
        let instance = Arc::clone(registrar.registration().instance());
        match self.asking.json {
            true => print_json(&json!({ "registered": *instance })),
            false => println!("{}", instance.id()),
        }
        if self.hold {
            tokio::signal::ctrl_c().await?;
            registrar.deregister().await?;
        } else {
            registrar.abandon();
        }
        Ok(ExitCode::SUCCESS)
    }

    fn registration(&self) -> Result<ServiceRegistration, Failure> {
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
