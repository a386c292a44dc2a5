//! `waypost man`

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_mangen::Man as Page;

use crate::error::{CommandError, CommandResult};
use crate::suggest::closest;
use crate::terminal::{print_line, print_verbatim};

/// Print the man page of waypost or of one of its commands
///
/// `waypost man | man -l -` shows it; `waypost man --out ~/.local/share/man/man1` installs all pages.
#[derive(Args)]
pub(crate) struct Man {
    /// Command to print the page of, such as `registry start`
    command: Vec<String>,
    /// Write the pages of all commands into this folder instead
    #[arg(long, value_name = "DIR", conflicts_with = "command")]
    out: Option<PathBuf>,
}

impl Man {
    pub(super) fn run<C: CommandFactory>(self) -> CommandResult {
        let mut all = C::command();
        // Gives the subcommands their full names.
        all.build();
        if let Some(folder) = self.out {
            let failed = |error| CommandError::Other(format!("{}: {error}", folder.display()));
            fs::create_dir_all(&folder).map_err(failed)?;
            clap_mangen::generate_to(all, &folder).map_err(failed)?;
            print_line(format_args!("wrote the man pages to {}", folder.display()))?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut command = &all;
        for word in &self.command {
            command = command.find_subcommand(word).ok_or_else(|| {
                let names = command.get_subcommands().map(clap::Command::get_name);
                let advice = match closest(word, names) {
                    Some(meant) => format!("did you mean {meant}?"),
                    None => "`waypost --help` lists the commands".to_owned(),
                };
                CommandError::Other(format!("there is no command {word:?}; {advice}"))
            })?;
        }
        let mut page = Vec::new();
        Page::new(command.clone()).render(&mut page)?;
        print_verbatim(&String::from_utf8_lossy(&page))?;
        Ok(ExitCode::SUCCESS)
    }
}
