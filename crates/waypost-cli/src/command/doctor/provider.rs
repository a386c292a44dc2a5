//! Which provider is used, and why.

use std::sync::Arc;

use waypost::Error;
use waypost::provider::Provider;
use waypost::provider::consul::ConsulProvider;
use waypost::provider::kubernetes::KubernetesProvider;
use waypost::settings::{ProviderKind, Settings};

use super::finding::Finding;
use crate::command::registry_args::RegistryArgs;
use crate::error::CommandError;

const SUBJECT: &str = "provider";

/// The provider that look-ups use.
pub(super) enum Chosen {
    Consul(ConsulProvider),
    Kubernetes(KubernetesProvider),
    /// A provider without a server.
    Other(Arc<dyn Provider>),
}

impl Chosen {
    pub(super) fn provider(&self) -> Arc<dyn Provider> {
        match self {
            Self::Consul(provider) => Arc::new(provider.clone()),
            Self::Kubernetes(provider) => Arc::new(provider.clone()),
            Self::Other(provider) => Arc::clone(provider),
        }
    }
}

/// The findings about the choice, and the provider unless its settings are invalid.
pub(super) fn examine(registry: &RegistryArgs) -> (Vec<Finding>, Option<Chosen>) {
    let mut findings = Vec::new();
    match choose(registry, &mut findings) {
        Ok(chosen) => (findings, Some(chosen)),
        Err(error) => {
            let advice = "correct or unset it; `waypost config show` lists all settings";
            findings.push(Finding::error(SUBJECT, error.to_string(), advice));
            (findings, None)
        }
    }
}

fn choose(registry: &RegistryArgs, findings: &mut Vec<Finding>) -> Result<Chosen, CommandError> {
    if let Some(environment) = registry.environment_of_flag() {
        let consul = registry.consul(&environment)?;
        let what = format!("{}, named by --registry", consul.describe());
        findings.push(Finding::ok(SUBJECT, what));
        return Ok(Chosen::Consul(consul));
    }
    let settings = Settings::of_this_process()?;
    let environment = settings.environment();
    let chosen = match settings.kind() {
        ProviderKind::Consul => Chosen::Consul(ConsulProvider::from_environment(environment)?),
        ProviderKind::Kubernetes => {
            Chosen::Kubernetes(KubernetesProvider::from_environment(environment)?)
        }
        _ => Chosen::Other(settings.chosen_provider()?),
    };
    let (description, reason) = (chosen.provider().describe(), settings.reason());
    let what = format!("{description}, because {reason}");
    findings.push(match unusable_token(reason) {
        Some(advice) => Finding::warning(SUBJECT, what, advice),
        None => Finding::ok(SUBJECT, what),
    });
    findings.extend(overruled(&settings));
    if settings.is_development() {
        let what = "ENVIRONMENT=development: programs call http://localhost:8000 for every service \
                    that the provider does not know";
        findings.push(Finding::ok(SUBJECT, what));
    }
    check_options(&settings)?;
    Ok(chosen)
}

/// Why the token of a pod can't be read, according to the reason for the choice.
fn unusable_token(reason: &str) -> Option<&'static str> {
    let is_unusable = reason.starts_with("KUBERNETES_SERVICE_HOST is set, but");
    is_unusable.then_some(
        "to use the Kubernetes API, give the pod a service account with \
         automountServiceAccountToken: true",
    )
}

/// A registry that variables name, but that isn't used because another setting takes precedence.
fn overruled(settings: &Settings) -> Option<Finding> {
    if settings.kind() == ProviderKind::Consul {
        return None;
    }
    let names = ["CONSUL_HTTP_ADDR", "CONSUL_HOST", "SERVICE_REGISTRY_HOST"];
    let is_set = |name: &&&str| settings.environment().get(name).is_some();
    let name = names.iter().find(is_set)?;
    let what = format!(
        "{name} is set too, but not used, because {}",
        settings.reason()
    );
    let advice = "unset one of them, or set SERVICE_DISCOVERY_PROVIDER=consul";
    Some(Finding::warning(SUBJECT, what, advice))
}

/// # Errors
/// A setting of look-ups or balancing is invalid.
fn check_options(settings: &Settings) -> Result<(), Error> {
    settings.directory_options()?;
    let environment = settings.environment();
    if let Some(name) = environment.get("SERVICE_DISCOVERY_STRATEGY") {
        waypost::balance::strategy_named(name)
            .map_err(|error| waypost::ConfigError::new("SERVICE_DISCOVERY_STRATEGY", error))?;
    }
    Ok(())
}
