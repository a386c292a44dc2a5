//! `waypost register`

use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use tokio::time::{sleep, timeout};
use waypost::integration::shutdown_signal;
use waypost::provider::Provider;
use waypost::{
    Check, Error, HealthChecks, Host, ProviderErrorKind, Registrar, RegistrationState, ServiceName,
    ServiceRegistration, Weight,
};

use super::local_check::LocalCheck;
use super::output_args::{Format, OutputArgs};
use super::registry_args::RegistryArgs;
use crate::error::{CommandError, CommandResult};
use crate::output::JSON_SCHEMA;
use crate::runtime::log_outages;
use crate::terminal::{print_json, print_line};

/// Register an instance
///
/// The instance stays registered until `waypost deregister`; with --hold, until the command is stopped
/// (Ctrl-C, SIGTERM, or closing its terminal).
#[derive(Args)]
pub(crate) struct Register {
    /// Service name
    service: ServiceName,
    /// Port of the instance
    #[arg(long)]
    port: u16,
    /// Address of the instance [default: the local address from which the registry is reached]
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
    /// HTTP path of the instance, or URL, that the registry checks
    #[arg(long, value_name = "PATH|URL", conflicts_with = "check_tcp")]
    check_http: Option<String>,
    /// Make the registry check that the instance accepts TCP connections
    #[arg(long)]
    check_tcp: bool,
    /// Check the instance from this machine, and report the result in heartbeats; without a heartbeat for
    /// this long, the instance is critical
    ///
    /// For a registry that cannot reach the instance. Checks that the instance accepts TCP connections,
    /// or requests the path or URL of --check-http. Requires --hold.
    #[arg(long, value_name = "TIME", requires = "hold", value_parser = humantime::parse_duration)]
    check_ttl: Option<Duration>,
    /// Interval between the registry's checks
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    interval: Duration,
    /// Keep the instance registered until the command is stopped, then deregister it
    #[arg(long)]
    hold: bool,
    #[command(flatten)]
    output: OutputArgs,
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
        // Created before the registration, which must be undone on a signal.
        let mut shutdown = pin!(shutdown_signal());
        let provider = self.registry.provider()?;
        let registration = self.registration(&*provider)?;
        let registrar = Registrar::start(provider, registration).map_err(unless_rejected)?;
        let limit = self.registry.timeout;
        let registered = tokio::select! {
            registered = timeout(limit, registrar.registered()) => registered,
            rejected = rejected(&registrar) => {
                registrar.abandon();
                return Err(unless_rejected(rejected));
            }
            () = &mut shutdown => return deregister(registrar).await,
        };
        if registered.is_err() {
            let error = match registrar.state() {
                RegistrationState::Pending(Some(error)) => Error::from(error).into(),
                _ => CommandError::Other(format!("the registry did not respond within {limit:?}")),
            };
            registrar.abandon();
            return Err(error);
        }
        let instance = Arc::clone(registrar.registration().instance());
        let printed = if self.output.format() == Format::Json {
            print_json(&json!({ "schema": JSON_SCHEMA, "registered": *instance }))
        } else {
            print_line(instance.id())
        };
        if self.hold {
            // The instance stays registered even if stdout is closed.
            log_outages();
            shutdown.await;
            return deregister(registrar).await;
        }
        registrar.abandon();
        printed?;
        Ok(ExitCode::SUCCESS)
    }

    fn registration(&self, provider: &dyn Provider) -> Result<ServiceRegistration, CommandError> {
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
        let http = self.check_http.as_ref().map(Check::http);
        // Kubernetes checks only pods, so this process checks the instance itself.
        let has_check = http.is_some() || self.check_tcp;
        let runs_check = self.hold && has_check && self.registry.is_kubernetes();
        if self.check_ttl.is_some() || runs_check {
            let local_address = provider.registry().map_err(Error::from)?.local_address();
            let instance = registration.clone().resolve(local_address)?;
            let check = LocalCheck::new(http.as_ref(), instance.instance())?;
            let health = HealthChecks::new(self.service.as_str()).check(check.name(), move || {
                let check = check.clone();
                async move { check.run().await }
            });
            registration = registration.health(health);
            if let Some(ttl) = self.check_ttl {
                registration = registration.check(Check::ttl(ttl));
            }
        } else if let Some(http) = http {
            registration = registration.check(http.every(self.interval));
        } else if self.check_tcp {
            registration = registration.check(Check::tcp().every(self.interval));
        }
        Ok(registration)
    }
}

/// Waits until the registry has refused the registration, which another attempt would not change.
async fn rejected(registrar: &Registrar) -> Error {
    loop {
        if let RegistrationState::Pending(Some(error)) = registrar.state()
            && error.kind() == ProviderErrorKind::Rejected
        {
            return error.into();
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// A registration that the registry refuses has invalid arguments.
fn unless_rejected(error: Error) -> CommandError {
    match error {
        Error::Rejected(_) => CommandError::Invalid(error.to_string()),
        error => error.into(),
    }
}

async fn deregister(registrar: Registrar) -> CommandResult {
    registrar.deregister().await?;
    Ok(ExitCode::SUCCESS)
}
