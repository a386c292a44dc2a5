//! The commands for a stack of services: its file, and the stack while it runs.

mod actions;
mod check;
mod environment;
mod logs;
mod open;
mod ps;
mod schema;
mod stack_args;

use clap::Subcommand;

pub(crate) use self::check::read;
pub(crate) use self::open::open_in_browser;
pub(crate) use self::stack_args::{FOLDER, StackArgs, log_folder};
use crate::error::CommandResult;
use crate::runtime::run_query;

#[derive(Subcommand)]
pub(crate) enum StackCommand {
    Ps(ps::Ps),
    Logs(logs::Logs),
    Start(actions::Start),
    Stop(actions::Stop),
    Restart(actions::Restart),
    Scale(actions::Scale),
    Down(actions::Down),
    Open(open::Open),
    Env(environment::Env),
    Exec(environment::Exec),
    Check(check::Check),
    Schema(schema::Schema),
}

impl StackCommand {
    pub(super) fn run(self) -> CommandResult {
        match self {
            Self::Ps(ps) => run_query(ps.run()),
            Self::Logs(logs) => run_query(logs.run()),
            Self::Start(start) => run_query(start.run()),
            Self::Stop(stop) => run_query(stop.run()),
            Self::Restart(restart) => run_query(restart.run()),
            Self::Scale(scale) => run_query(scale.run()),
            Self::Down(down) => run_query(down.run()),
            Self::Open(open) => run_query(open.run()),
            Self::Env(env) => run_query(env.run()),
            Self::Exec(exec) => run_query(exec.run()),
            Self::Check(check) => check.run(),
            Self::Schema(schema) => schema.run(),
        }
    }
}
