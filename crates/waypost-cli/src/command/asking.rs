use std::time::Duration;

use clap::Args;
use waypost::{
    ClientBuilder, ConsulProvider, Directory, DirectoryOptions, Provider, ServiceDiscoveryClient,
    Settings,
};

use crate::failure::Failure;

/// Which registry to ask, and how the answer is printed.
#[derive(Args)]
pub(crate) struct Asking {
    /// Ask the Consul agent or embedded registry here, instead of what the environment names
    #[arg(long, value_name = "HOST:PORT", global = true)]
    registry: Option<String>,

    /// How long to wait for an answer
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = humantime::parse_duration)]
    timeout: Duration,

    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

impl Asking {
    /// The provider to ask. `ENVIRONMENT=development` adds no fallback here: who looks wants to
    /// see what is there.
    pub(crate) fn provider(&self) -> Result<std::sync::Arc<dyn Provider>, Failure> {
        if let Some(address) = &self.registry {
            return Ok(std::sync::Arc::new(ConsulProvider::new(address)?));
        }
        Ok(Settings::of_this_process()?.chosen_provider()?)
    }

    pub(crate) fn directory(&self) -> Result<Directory, Failure> {
        Ok(Directory::with_options(self.provider()?, self.options()))
    }

    pub(crate) fn client(&self) -> Result<ServiceDiscoveryClient, Failure> {
        Ok(self.client_builder()?.build()?)
    }

    /// A client that picks by the strategy of this name.
    pub(crate) fn client_with_strategy(
        &self,
        strategy: &str,
    ) -> Result<ServiceDiscoveryClient, Failure> {
        Ok(self.client_builder()?.strategy_named(strategy).build()?)
    }

    fn client_builder(&self) -> Result<ClientBuilder, Failure> {
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
