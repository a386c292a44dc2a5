//! The options of every command that queries a registry.

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use waypost::directory::{Directory, DirectoryOptions};
use waypost::provider::Provider;
use waypost::provider::consul::ConsulProvider;
use waypost::settings::Settings;
use waypost::{ClientBuilder, ConfigError, Environment, Error, ServiceDiscoveryClient};

use crate::error::CommandError;

/// Which registry to query, how long to wait, and how to print the result.
#[derive(Args)]
pub(crate) struct RegistryArgs {
    /// Query this Consul agent or embedded registry instead of the configured one; the token and
    /// certificates are still taken from the environment
    #[arg(long, value_name = "HOST:PORT")]
    registry: Option<String>,

    /// How long to wait for the registry
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    pub(crate) timeout: Duration,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// The variable that carries `--registry` to the provider.
const ADDRESS_VARIABLE: &str = "CONSUL_HTTP_ADDR";

impl RegistryArgs {
    /// The provider to query. `ENVIRONMENT=development` adds no fallback here: the command shows
    /// what is registered, and nothing else.
    pub(crate) fn provider(&self) -> Result<Arc<dyn Provider>, CommandError> {
        let Some(address) = &self.registry else {
            return Ok(Settings::of_this_process()?.chosen_provider()?);
        };
        let environment = Environment::of_this_process()
            .with("CONSUL_HOST", "")
            .with("CONSUL_PORT", "")
            .with(ADDRESS_VARIABLE, address);
        let provider =
            ConsulProvider::from_environment(&environment).map_err(|error| match error {
                Error::Config(error) if error.location() == ADDRESS_VARIABLE => {
                    ConfigError::new("--registry", error.problem()).into()
                }
                other => other,
            })?;
        Ok(Arc::new(provider))
    }

    pub(crate) fn directory(&self) -> Result<Directory, CommandError> {
        Ok(Directory::with_options(self.provider()?, self.options()))
    }

    pub(crate) fn client_builder(&self) -> Result<ClientBuilder, CommandError> {
        Ok(ServiceDiscoveryClient::builder()
            .directory_options(self.options())
            .shared_provider(self.provider()?))
    }

    fn options(&self) -> DirectoryOptions {
        let mut options = DirectoryOptions::default();
        options.lookup_timeout = self.timeout;
        options
    }
}
