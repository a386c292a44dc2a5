//! `waypost doctor`: diagnoses problems and suggests how to fix them.

mod consul;
mod finding;
mod kubernetes;
mod ports;
mod provider;
mod running_stack;
mod service;
mod stack;
mod system;

use clap::Args;
use waypost::ServiceName;

use self::finding::{Finding, exit_code, print_findings, print_findings_json};
use self::provider::Chosen;
use super::output_args::{Format, OutputArgs};
use super::registry_args::RegistryArgs;
use crate::completion;
use crate::error::CommandResult;

/// Diagnose problems and suggest how to fix them
///
/// Examines the settings, the registry and the permissions there, the stack file and its routes
/// file, ports, the clock, name resolution, proxies and limits; with NAME also the instances of that service,
/// their checks, and whether their addresses can be reached from here. It changes nothing.
///
/// Exit codes: 0 if there are no problems, 1 with warnings, 2 with errors.
#[derive(Args)]
pub(crate) struct Doctor {
    /// Also examine this service
    #[arg(value_name = "NAME", add = completion::services())]
    service: Option<ServiceName>,
    #[command(flatten)]
    output: OutputArgs,
    #[command(flatten)]
    registry: RegistryArgs,
}

impl Doctor {
    pub(super) async fn run(self) -> CommandResult {
        let findings = self.findings().await;
        if self.output.format() == Format::Json {
            print_findings_json(&findings)?;
        } else {
            print_findings(&findings)?;
        }
        Ok(exit_code(&findings))
    }

    async fn findings(&self) -> Vec<Finding> {
        let (mut findings, chosen) = provider::examine(&self.registry);
        let limit = self.registry.timeout;
        let is_usable = match &chosen {
            None => false,
            Some(Chosen::Consul(consul)) => consul::examine(consul, limit, &mut findings).await,
            Some(Chosen::Kubernetes(cluster)) => {
                kubernetes::examine(cluster, limit, &mut findings).await
            }
            Some(Chosen::Other(_)) => true,
        };
        match (&self.service, &chosen) {
            (Some(service), Some(chosen)) if is_usable => {
                service::examine(service, chosen.provider(), &self.registry, &mut findings).await;
            }
            (Some(service), _) => findings.push(Finding::error(
                "service",
                format!("{service} can't be looked up"),
                "fix the errors above first",
            )),
            (None, _) => {}
        }
        stack::examine(&mut findings).await;
        findings.extend(system::examine());
        findings
    }
}
