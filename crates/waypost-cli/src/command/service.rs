use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::Outcome;
use crate::failure::Failure;

/// Run one of the sample services
#[derive(Args)]
pub(crate) struct Service {
    #[command(subcommand)]
    which: Which,
}

#[derive(Subcommand)]
enum Which {
    /// Small AI models that run offline; with AI_MODELS_UPSTREAM also those of an
    /// OpenAI-compatible server
    AiModels {
        #[command(flatten)]
        listen: Listen<{ waypost_ai_models::DEFAULT_PORT }>,
    },
    /// A page that uses the AI models through the gateway and shows the live services
    Ui {
        #[command(flatten)]
        listen: Listen<{ waypost_ui::DEFAULT_PORT }>,
    },
}

#[derive(Args)]
struct Listen<const PORT: u16> {
    /// The address to listen on
    #[arg(long, default_value_t = Ipv4Addr::LOCALHOST.into())]
    bind: IpAddr,
    /// The port to listen on; 0 for any that is free
    #[arg(long, default_value_t = PORT)]
    port: u16,
    /// The address under which others reach it [default: the one it listens on]
    #[arg(long, value_name = "HOST")]
    advertise: Option<waypost::Host>,
}

impl Service {
    pub(super) async fn run(self) -> Outcome {
        match self.which {
            Which::AiModels { listen } => {
                let mut config = waypost_ai_models::Config::default();
                (config.bind, config.port) = (listen.bind, listen.port);
                config.advertise = listen.advertise;
                config.upstream =
                    waypost_ai_models::Upstream::from_env().map_err(Failure::other)?;
                waypost_ai_models::run(config)
                    .await
                    .map_err(Failure::other)?;
            }
            Which::Ui { listen } => {
                let mut config = waypost_ui::Config::default();
                (config.bind, config.port) = (listen.bind, listen.port);
                config.advertise = listen.advertise;
                waypost_ui::run(config).await.map_err(Failure::other)?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
