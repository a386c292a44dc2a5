//! The reference of all commands, `docs/commands.md`: what `waypost COMMAND --help` prints.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell::{self, Result};

const HEAD: &str = "\
# Commands

Every command with its options, as `waypost COMMAND --help` prints it. [Command line](command-line.md) explains exit
codes and JSON. Written by `cargo xtask commands --update`.

## Common options

The commands that query a registry have all of these options, the other commands only those for logging.

";

/// The headings of options that many commands have. They are shown once.
const COMMON: [&str; 3] = ["Output:", "Registry:", "Logging:"];

/// A command that has all common options.
const WITH_COMMON: &str = "instances";

/// Fails if the reference is out of date.
pub(crate) fn check() -> Result {
    if fs::read_to_string(file()).unwrap_or_default() == reference()? {
        return Ok(());
    }
    Err(
        "docs/commands.md is out of date; run `cargo xtask commands --update` and commit it"
            .to_owned(),
    )
}

/// Writes the reference.
pub(crate) fn update() -> Result {
    fs::write(file(), reference()?).map_err(|error| format!("{}: {error}", file().display()))
}

fn file() -> PathBuf {
    shell::workspace().join("docs/commands.md")
}

fn reference() -> Result<String> {
    let program = crate::python::debug_program()?;
    let help = help(&program, &[WITH_COMMON.to_owned()])?;
    let common = sections(&help).into_iter().filter(|it| is_common(it));
    let mut text = HEAD.to_owned();
    push_block(&mut text, common);
    push_command(&mut text, &program, &[])?;
    Ok(text)
}

/// Adds a command and its subcommands.
fn push_command(text: &mut String, program: &Path, path: &[String]) -> Result {
    let help = help(program, path)?;
    let name = [&["waypost".to_owned()], path].concat().join(" ");
    text.push_str(&format!("\n## `{name}`\n\n"));
    let own = sections(&help).into_iter().filter(|it| !is_common(it));
    push_block(text, own);
    for subcommand in subcommands(&help) {
        push_command(text, program, &[path, &[subcommand]].concat())?;
    }
    Ok(())
}

fn help(program: &Path, path: &[String]) -> Result<String> {
    // Without the values of variables, which `--help` shows.
    let mut command = Command::new(program);
    shell::output(command.args(path).arg("--help").env_clear())
}

/// The parts of a help text: the description, then each part that begins with a heading.
fn sections(help: &str) -> Vec<Vec<&str>> {
    let mut sections = vec![Vec::new()];
    for line in help.lines().map(str::trim_end) {
        let is_heading = line.ends_with(':') && !line.starts_with(' ');
        if is_heading || line.starts_with("Usage: ") {
            sections.push(Vec::new());
        }
        if let Some(section) = sections.last_mut() {
            section.push(line);
        }
    }
    sections
        .into_iter()
        .map(without_help_option)
        .filter(|section| section.iter().any(|line| !line.ends_with(':')))
        .collect()
}

/// Removes `-h, --help`, which every command has, and empty lines at the end.
fn without_help_option(section: Vec<&str>) -> Vec<&str> {
    let mut kept = Vec::new();
    let mut in_help = false;
    for line in section {
        let is_option =
            line.trim_start().starts_with('-') && line.len() - line.trim_start().len() < 8;
        in_help = line.starts_with("  -h, --help") || (in_help && !is_option);
        if !in_help {
            kept.push(line);
        }
    }
    while kept.last().is_some_and(|line| line.is_empty()) {
        kept.pop();
    }
    kept
}

fn is_common(section: &[&str]) -> bool {
    section.first().is_some_and(|line| COMMON.contains(line))
}

fn push_block<'a>(text: &mut String, sections: impl Iterator<Item = Vec<&'a str>>) {
    let sections: Vec<String> = sections.map(|section| section.join("\n")).collect();
    text.push_str("```text\n");
    text.push_str(&sections.join("\n\n"));
    text.push_str("\n```\n");
}

/// The names of the subcommands in a help text, without `help`.
fn subcommands(help: &str) -> Vec<String> {
    let sections = sections(help);
    let commands = sections
        .iter()
        .find(|section| section.first() == Some(&"Commands:"));
    let lines = commands.into_iter().flatten().skip(1);
    lines
        .filter_map(|line| line.strip_prefix("  "))
        .filter(|line| !line.starts_with(' '))
        .filter_map(|line| line.split(' ').next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
        .collect()
}
