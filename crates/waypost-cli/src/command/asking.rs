use std::time::Duration;

use clap::Args;
use waypost::{
    ClientBuilder, ConfigError, ConsulProvider, Directory, DirectoryOptions, Environment, Error,
    Provider, ServiceDiscoveryClient, Settings,
};

use crate::failure::Failure;

/// Which registry to ask, and how the answer is printed.
#[derive(Args)]
pub(crate) struct Asking {
    /// Ask the Consul agent or embedded registry here, instead of the one that the environment
    /// names; its token and certificates still come from there
    #[arg(long, value_name = "HOST:PORT", global = true)]
    registry: Option<String>,

    /// How long to wait for an answer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    timeout: Duration,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// How `--registry` is told to the provider.
const ADDRESS: &str = "CONSUL_HTTP_ADDR";

impl Asking {
    /// The provider to ask. `ENVIRONMENT=development` adds no fallback here: who looks wants to
    /// see what is there.
    pub(crate) fn provider(&self) -> Result<std::sync::Arc<dyn Provider>, Failure> {
        let Some(address) = &self.registry else {
            return Ok(Settings::of_this_process()?.chosen_provider()?);
        };
        let environment = Environment::of_this_process()
            .with("CONSUL_HOST", "")
            .with("CONSUL_PORT", "")
            .with(ADDRESS, address);
        let provider =
            ConsulProvider::from_environment(&environment).map_err(|error| match error {
                Error::Config(error) if error.place() == ADDRESS => {
                    ConfigError::new("--registry", error.problem()).into()
                }
                other => other,
            })?;
        Ok(std::sync::Arc::new(provider))
    }

    pub(crate) fn directory(&self) -> Result<Directory, Failure> {
        Ok(Directory::with_options(self.provider()?, self.options()))
    }

    pub(crate) fn client(&self) -> Result<ServiceDiscoveryClient, Failure> {
        Ok(self.client_builder()?.build()?)
    }

    /// The beginnings of a client of that registry.
    pub(crate) fn client_builder(&self) -> Result<ClientBuilder, Failure> {
        let builder = ServiceDiscoveryClient::builder().directory_options(self.options());
        Ok(builder.shared_provider(self.provider()?))
    }

    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    fn options(&self) -> DirectoryOptions {
        let mut options = DirectoryOptions::default();
        options.lookup_timeout = self.timeout;
        options
    }
}
