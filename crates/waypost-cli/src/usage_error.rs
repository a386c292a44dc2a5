//! Errors in the arguments, printed on one line like every other error.

use std::process::ExitCode;

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::suggest;
use crate::terminal::print_error;

/// The exit code for invalid arguments.
const INVALID: u8 = 2;

/// Prints clap's message and returns the exit code. Requested output, such as the help, is printed on
/// stdout.
pub(crate) fn report(error: clap::Error, command: &Command) -> ExitCode {
    let is_error =
        error.use_stderr() && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if is_error {
        print_error(one_line(suggest::improve(error), command));
        return ExitCode::from(INVALID);
    }
    let code = error.exit_code();
    // Fails if the reader of stdout, such as a pager, has exited early. That is not an error.
    let _ = error.print();
    ExitCode::from(u8::try_from(code).unwrap_or(INVALID))
}

/// The message, a suggestion, and how to show the help.
fn one_line(error: clap::Error, command: &Command) -> String {
    let rendered = error.render().to_string();
    // The first paragraph is the message; a list in it has a line for each item.
    let message = rendered.lines().take_while(|line| !line.is_empty());
    let message = message.map(str::trim).collect::<Vec<_>>().join(" ");
    let message = message.strip_prefix("error: ").unwrap_or(&message);
    let mut parts = vec![message.to_owned()];
    parts.extend(tips(&error));
    let help = format!("see `{} --help`", path(command));
    parts.push(help);
    parts.join("; ")
}

fn tips(error: &clap::Error) -> Vec<String> {
    let suggested = [
        ContextKind::SuggestedSubcommand,
        ContextKind::SuggestedArg,
        ContextKind::SuggestedValue,
    ];
    let meant = suggested
        .into_iter()
        .filter_map(|kind| match error.get(kind)? {
            ContextValue::String(meant) => Some(format!("did you mean '{meant}'?")),
            _ => None,
        });
    let mut tips: Vec<_> = meant.collect();
    if let Some(ContextValue::StyledStrs(texts)) = error.get(ContextKind::Suggested) {
        // One tip is enough, and the suggested word is the better one.
        if tips.is_empty() {
            tips.extend(texts.iter().map(ToString::to_string));
        }
    }
    tips
}

/// The command in the arguments of this process, such as `waypost agent leave`.
fn path(command: &Command) -> String {
    let mut path = command.get_name().to_owned();
    let mut command = command;
    for argument in std::env::args_os().skip(1) {
        if let Some(subcommand) = command.find_subcommand(argument) {
            path = format!("{path} {}", subcommand.get_name());
            command = subcommand;
        }
    }
    path
}
