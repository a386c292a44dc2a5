//! Errors in the arguments, printed on one line like every other error.

use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};

use crate::suggest;
use crate::terminal::print_error;

/// The exit code for invalid arguments.
const INVALID: u8 = 2;

/// Prints clap's message and returns the exit code. Requested output, such as the help, is printed on
/// stdout.
pub(crate) fn report(error: clap::Error) -> ExitCode {
    let is_error =
        error.use_stderr() && error.kind() != ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand;
    if is_error {
        print_error(one_line(suggest::improve(error)));
        return ExitCode::from(INVALID);
    }
    let code = error.exit_code();
    // Fails if the reader of stdout, such as a pager, has ended early. That is no error.
    let _ = error.print();
    ExitCode::from(u8::try_from(code).unwrap_or(INVALID))
}

/// The message, a suggestion, and how to show the help.
fn one_line(error: clap::Error) -> String {
    let rendered = error.render().to_string();
    // The first paragraph is the message; a list in it has a line for each item.
    let message = rendered.lines().take_while(|line| !line.is_empty());
    let message = message.map(str::trim).collect::<Vec<_>>().join(" ");
    let message = message.strip_prefix("error: ").unwrap_or(&message);
    let mut parts = vec![message.to_owned()];
    parts.extend(tips(&error));
    let help = format!("see `{} --help`", command_of(&rendered));
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

/// The command in the usage line of a rendered error, such as `waypost agent leave`.
fn command_of(rendered: &str) -> String {
    let usage = rendered
        .lines()
        .find_map(|line| line.strip_prefix("Usage: "));
    let words = usage.unwrap_or("waypost").split_whitespace();
    let command = words.take_while(|word| !word.starts_with(['-', '<', '[']));
    command.collect::<Vec<_>>().join(" ")
}
