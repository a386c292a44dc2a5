//! The subcommands, one module each.

mod agent;
mod completions;
mod config;
mod consul_binary;
mod deregister;
mod doctor;
mod explain;
mod gateway;
mod inherited;
mod init;
mod instances;
mod listen;
mod local_check;
mod man;
mod output_args;
mod register;
mod registry;
pub(crate) mod registry_args;
mod resolve;
mod service;
mod services;
mod stack;
mod token_args;
mod ui;
mod up;
mod watch;

use std::process::ExitCode;

use clap::{CommandFactory, Subcommand};

use crate::error::CommandResult;
use crate::runtime::{run_query, run_server, run_stack};
use crate::terminal::print_verbatim;

#[derive(Subcommand)]
pub(crate) enum Command {
    Up(up::Up),
    Run(up::Run),
    Init(init::Init),
    #[command(flatten)]
    Stack(stack::StackCommand),
    Agent(agent::Agent),
    Gateway(gateway::Gateway),
    Service(service::Service),
    Ui(ui::Ui),
    #[command(subcommand)]
    Registry(registry::Registry),
    #[command(aliases = ["list", "ls"])]
    Services(services::Services),
    Instances(instances::Instances),
    Resolve(resolve::Resolve),
    Explain(explain::Explain),
    Watch(watch::Watch),
    Register(register::Register),
    Deregister(deregister::Deregister),
    Doctor(doctor::Doctor),
    #[command(subcommand)]
    Config(config::Config),
    Completions(completions::Completions),
    Man(man::Man),
    /// Show whether the registry responds; the same as `waypost registry status`
    #[command(hide = true)]
    Status(registry::Status),
    /// Print the version; the same as `waypost --version`
    #[command(hide = true)]
    Version,
}

impl Command {
    /// Runs the command. `C` is the whole command line, for the man page.
    pub(crate) fn run<C: CommandFactory>(self) -> CommandResult {
        match self {
            Self::Init(init) => init.run(),
            Self::Up(up) => run_stack(up.run()),
            Self::Run(run) => run_stack(run.run()),
            Self::Stack(stack) => stack.run(),
            Self::Agent(agent) => agent.run(),
            Self::Gateway(gateway) => gateway.run(),
            Self::Service(service) => run_server(service.run()),
            Self::Ui(ui) => run_server(ui.run()),
            Self::Registry(registry) => registry.run(),
            Self::Services(services) => run_query(services.run()),
            Self::Instances(instances) => run_query(instances.run()),
            Self::Resolve(resolve) => run_query(resolve.run()),
            Self::Explain(explain) => run_query(explain.run()),
            Self::Watch(watch) => run_query(watch.run()),
            Self::Register(register) => run_query(register.run()),
            Self::Deregister(deregister) => run_query(deregister.run()),
            Self::Config(config) => config.run::<C>(),
            Self::Doctor(doctor) => run_query(doctor.run()),
            Self::Completions(completions) => completions.run(),
            Self::Man(man) => man.run::<C>(),
            Self::Status(status) => run_query(status.run()),
            Self::Version => {
                print_verbatim(&C::command().render_version())?;
                Ok(ExitCode::SUCCESS)
            }
        }
    }
}
