//! The registry itself: to start one, to see how it is, to get Consul, and to write the
//! configuration of a cluster.

mod bootstrap;
mod config;
mod consul;
mod install;
mod start;
mod status;

use clap::Subcommand;

use super::{Outcome, in_runtime, serving};

/// Start, look at or set up a service registry
#[derive(Subcommand)]
pub(crate) enum Registry {
    Start(start::Start),
    Status(status::Status),
    Install(install::Install),
    Config(config::Config),
    Bootstrap(bootstrap::Bootstrap),
}

impl Registry {
    pub(super) fn run(self) -> Outcome {
        match self {
            Self::Start(start) => serving("info", start.run()),
            Self::Status(status) => in_runtime(status.run()),
            Self::Install(install) => install.run(),
            Self::Config(config) => config.run(),
            Self::Bootstrap(bootstrap) => in_runtime(bootstrap.run()),
        }
    }
}
