//! `waypost registry`: installs, configures, starts and queries a registry.

mod bootstrap;
mod config;
mod install;
mod start;
mod status;

use clap::Subcommand;

pub(crate) use self::status::Status;
use crate::error::CommandResult;
use crate::runtime::{run_query, run_server};

/// Start, query or set up a service registry
#[derive(Subcommand)]
pub(crate) enum Registry {
    Start(start::Start),
    Status(Status),
    Install(install::Install),
    Config(config::Config),
    Bootstrap(bootstrap::Bootstrap),
}

impl Registry {
    pub(super) fn run(self) -> CommandResult {
        match self {
            Self::Start(start) => run_server(start.run()),
            Self::Status(status) => run_query(status.run()),
            Self::Install(install) => install.run(),
            Self::Config(config) => config.run(),
            Self::Bootstrap(bootstrap) => run_query(bootstrap.run()),
        }
    }
}
