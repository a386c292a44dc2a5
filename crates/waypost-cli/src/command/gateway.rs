//! `waypost gateway`

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use tokio::net::TcpListener;
use waypost::ServiceDiscoveryClient;
use waypost::integration::shutdown_signal;
use waypost::settings::Settings;
use waypost_gateway::Config;

use super::listen::listen_error;
use crate::error::CommandResult;
use crate::terminal::announce;

/// Run the API gateway, which forwards /NAME/... to a healthy instance of service NAME
#[derive(Args)]
pub(crate) struct Gateway {
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value_t = Ipv4Addr::LOCALHOST.into())]
    bind: IpAddr,
    /// Port to listen on
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// Trust the Forwarded and X-Forwarded-* headers of proxies in this network; can be repeated
    #[arg(long, value_name = "ADDRESS/BITS")]
    trust: Vec<ipnet::IpNet>,
}

impl Gateway {
    pub(super) async fn run(self) -> CommandResult {
        let shutdown = shutdown_signal();
        // The fallback of ENVIRONMENT=development is a gateway, so it can't be used here.
        let settings = Settings::of_this_process()?;
        let provider = settings.chosen_provider()?;
        let client = ServiceDiscoveryClient::builder()
            .shared_provider(Arc::clone(&provider))
            .environment(settings.environment().clone())
            .build()?;
        let mut config = Config::default();
        config.trusted_proxies = self.trust;

        let address = SocketAddr::new(self.bind, self.port);
        let listener = TcpListener::bind(address)
            .await
            .map_err(|error| listen_error(address, &error, "--port"))?;
        announce(format_args!(
            "gateway: http://{} (registry: {})",
            listener.local_addr()?,
            provider.describe()
        ));
        waypost_gateway::Gateway::new(client, config)
            .serve(listener, shutdown)
            .await?;
        Ok(ExitCode::SUCCESS)
    }
}
