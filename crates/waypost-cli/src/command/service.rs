//! `waypost service`

use std::net::{IpAddr, Ipv4Addr};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use waypost::integration::shutdown_signal;
use waypost_ai_models::RunError;

use super::listen::listen_error;
use crate::error::{CommandError, CommandResult};

/// Run one of the sample services
#[derive(Args)]
pub(crate) struct Service {
    #[command(subcommand)]
    sample: Sample,
}

#[derive(Subcommand)]
enum Sample {
    /// Small AI models that run offline
    ///
    /// If AI_MODELS_UPSTREAM names an OpenAI-compatible server, that server's models are offered
    /// too.
    AiModels {
        #[command(flatten)]
        listen: ListenArgs,
        /// Port to listen on; 0 for any free port
        #[arg(long, default_value_t = waypost_ai_models::DEFAULT_PORT)]
        port: u16,
    },
    /// A web page that calls the AI models through the gateway and shows all services live
    Ui {
        #[command(flatten)]
        listen: ListenArgs,
        /// Port to listen on; 0 for any free port
        #[arg(long, default_value_t = waypost_ui::DEFAULT_PORT)]
        port: u16,
    },
}

#[derive(Args)]
struct ListenArgs {
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value_t = Ipv4Addr::LOCALHOST.into())]
    bind: IpAddr,
    /// Address to register, for other services to call [default: the bind address]
    #[arg(long, value_name = "HOST")]
    advertise: Option<waypost::Host>,
    /// Public host name that browsers may use for the service, in addition to addresses and local
    /// names; can be repeated
    #[arg(long, value_name = "NAME")]
    allow_host: Vec<String>,
}

impl Service {
    pub(super) async fn run(self) -> CommandResult {
        let shutdown = shutdown_signal();
        match self.sample {
            Sample::AiModels { listen, port } => {
                let config = waypost_ai_models::Config {
                    bind: listen.bind,
                    port,
                    advertise: listen.advertise,
                    allowed_hosts: listen.allow_host,
                    upstream: waypost_ai_models::Upstream::from_env()
                        .map_err(CommandError::other)?,
                    ..waypost_ai_models::Config::default()
                };
                waypost_ai_models::run_until(config, shutdown)
                    .await
                    .map_err(|error| match error {
                        RunError::Listen { address, cause } => {
                            listen_error(address, &cause, "--port")
                        }
                        other => CommandError::other(other),
                    })?;
            }
            Sample::Ui { listen, port } => {
                let config = waypost_ui::Config {
                    bind: listen.bind,
                    port,
                    advertise: listen.advertise,
                    allowed_hosts: listen.allow_host,
                    ..waypost_ui::Config::default()
                };
                waypost_ui::run_until(config, shutdown)
                    .await
                    .map_err(|error| match error {
                        waypost_ui::Error::Listen { address, cause } => {
                            listen_error(address, &cause, "--port")
                        }
                        other => CommandError::other(other),
                    })?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
