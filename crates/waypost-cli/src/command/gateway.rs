use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;

use clap::Args;
use tokio::net::TcpListener;
use waypost::integration::shutdown_signal;
use waypost::{ServiceDiscoveryClient, Settings};
use waypost_gateway::{Config, Gateway};

use super::Outcome;
use crate::failure::Failure;

/// Run the API gateway: /NAME/... goes to a healthy instance of the service NAME
#[derive(Args)]
pub(crate) struct Serve {
    /// The address to listen on
    #[arg(long, default_value_t = Ipv4Addr::LOCALHOST.into())]
    bind: IpAddr,
    /// The port to listen on
    #[arg(long, default_value_t = 8000)]
    port: u16,
    /// Believe the Forwarded and X-Forwarded-* headers of proxies here; may be given several times
    #[arg(long, value_name = "ADDRESS/BITS")]
    trust: Vec<ipnet::IpNet>,
}

impl Serve {
    pub(super) async fn run(self) -> Outcome {
        // Without the fallback of development: that is this very gateway.
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
            .map_err(|error| Failure::other(format_args!("can't listen on {address}: {error}")))?;
        println!(
            "gateway: http://{} asks {}",
            listener.local_addr()?,
            provider.describe()
        );
        Gateway::new(client, config)
            .serve(listener, shutdown_signal())
            .await?;
        Ok(ExitCode::SUCCESS)
    }
}
