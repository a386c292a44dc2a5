//! The options of every command that queries a registry.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::time::timeout;
use waypost::directory::{Directory, DirectoryOptions};
use waypost::provider::consul::ConsulProvider;
use waypost::provider::{CheckResult, Provider};
use waypost::settings::{ProviderKind, Settings};
use waypost::{
    ClientBuilder, ConfigError, Environment, Error, Invalid, ServiceAddress,
    ServiceDiscoveryClient, ServiceName,
};

use crate::error::CommandError;
use crate::suggest::closest;

/// Which registry to query, and how long to wait.
#[derive(Args)]
pub(crate) struct RegistryArgs {
    /// Query this Consul agent or embedded registry instead of the one that the environment names;
    /// the token and certificates are still taken from there
    ///
    /// Without this option, CONSUL_HTTP_ADDR, CONSUL_HOST, SERVICE_REGISTRY_HOST,
    /// SERVICE_DISCOVERY_PROVIDER and others choose the registry; `waypost config show` lists all of them.
    #[arg(long, value_name = "HOST:PORT", help_heading = "Registry")]
    registry: Option<String>,

    /// How long to wait for the registry
    #[arg(
        long,
        value_name = "TIME",
        default_value = "5s",
        value_parser = humantime::parse_duration,
        help_heading = "Registry"
    )]
    pub(crate) timeout: Duration,
}

/// The variable by which `--registry` is passed to the provider.
const ADDRESS_VARIABLE: &str = "CONSUL_HTTP_ADDR";

/// Parses a service name or an address. A path is accepted only in an address with a scheme: without
/// one, `team/users` is more likely an invalid name.
pub(crate) fn service_or_address(text: &str) -> Result<ServiceAddress, Invalid> {
    if text.contains('/') && !text.contains("://") {
        ServiceName::new(text)?;
    }
    text.parse()
}

impl RegistryArgs {
    /// The arguments of a command line that is being completed.
    pub(crate) fn for_completion(registry: Option<String>, timeout: Duration) -> Self {
        Self { registry, timeout }
    }

    /// The provider to query. `ENVIRONMENT=development` adds no fallback here: the command shows
    /// what is registered, and nothing else.
    pub(crate) fn provider(&self) -> Result<Arc<dyn Provider>, CommandError> {
        match self.environment_of_flag() {
            None => Ok(Settings::of_this_process()?.chosen_provider()?),
            Some(environment) => Ok(Arc::new(self.consul(&environment)?)),
        }
    }

    /// Whether the registry is a Kubernetes cluster.
    pub(crate) fn is_kubernetes(&self) -> bool {
        let kind = Settings::of_this_process().map(|settings| settings.kind());
        self.registry.is_none() && matches!(kind, Ok(ProviderKind::Kubernetes))
    }

    /// The environment with the registry named by `--registry`; `None` without the flag.
    pub(crate) fn environment_of_flag(&self) -> Option<Environment> {
        let address = self.registry.as_ref()?;
        let environment = Environment::of_this_process()
            .with("CONSUL_HOST", "")
            .with("CONSUL_PORT", "")
            .with(ADDRESS_VARIABLE, address);
        Some(environment)
    }

    /// The provider for the registry of [`environment_of_flag`](Self::environment_of_flag).
    pub(crate) fn consul(&self, environment: &Environment) -> Result<ConsulProvider, CommandError> {
        let provider = ConsulProvider::from_environment(environment);
        Ok(provider.map_err(|error| match error {
            Error::Config(error) if error.location() == ADDRESS_VARIABLE => {
                ConfigError::new("--registry", error.problem()).into()
            }
            other => other,
        })?)
    }

    pub(crate) fn directory(&self) -> Result<Directory, CommandError> {
        Ok(self.directory_of(self.provider()?))
    }

    /// A directory of this provider, with the options of the command line.
    pub(crate) fn directory_of(&self, provider: Arc<dyn Provider>) -> Directory {
        Directory::with_options(provider, self.options())
    }

    pub(crate) fn client_builder(&self) -> Result<ClientBuilder, CommandError> {
        Ok(ServiceDiscoveryClient::builder()
            .directory_options(self.options())
            .shared_provider(self.provider()?))
    }

    /// The results of the registry's checks of a service. Empty if the registry fails to return them:
    /// the output is still useful without these details.
    pub(crate) async fn check_results(
        &self,
        directory: &Directory,
        service: &ServiceName,
    ) -> Vec<CheckResult> {
        let results = directory.provider().check_results(service);
        match timeout(self.timeout, results).await {
            Ok(Ok(results)) => results,
            _ => Vec::new(),
        }
    }

    /// Adds a suggestion to the error if the service is unknown: the service with the most similar name.
    pub(crate) async fn with_suggestion(
        &self,
        directory: &Directory,
        error: Error,
    ) -> CommandError {
        let Error::UnknownService { service, .. } = &error else {
            return error.into();
        };
        let Ok(catalog) = directory.catalog().await else {
            return error.into();
        };
        let names = catalog.names().iter().map(ServiceName::as_str);
        let hint = match (closest(service.as_str(), names), catalog.names().len()) {
            (Some(name), _) => format!("did you mean {name}?"),
            (None, 0) => "nothing is registered there".to_owned(),
            (None, _) => "`waypost services` lists the known ones".to_owned(),
        };
        CommandError::WithHint(Box::new(error), hint)
    }

    fn options(&self) -> DirectoryOptions {
        let mut options = DirectoryOptions::default();
        options.lookup_timeout = self.timeout;
        options
    }
}
