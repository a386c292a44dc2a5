//! `waypost logs`

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::json;
use waypost_runner::control::{LineStream, LineView};
use waypost_runner::stack_file::StackFile;
use waypost_runner::{Level, LogFiles, printable};

use super::stack_args::{StackArgs, client_error, log_folder, name_in_path};
use crate::error::{CommandError, CommandResult};
use crate::style::{Text, Tone, print_texts};
use crate::terminal::print_json;

/// Show the output of the services, in the order in which it was written
///
/// If the stack is not running, shows the output of its last runs, which is kept in .waypost/logs.
#[derive(Args)]
pub(crate) struct Logs {
    /// Only these services or instances
    #[arg(value_name = "SERVICE")]
    services: Vec<String>,
    /// Also show new output, until Ctrl-C
    #[arg(short, long)]
    follow: bool,
    /// Only lines since this time: a duration before now (10m), or a time (2026-01-31T12:00:00Z)
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Only lines of this level or a more severe one: error, warn, info, debug or trace
    #[arg(long)]
    level: Option<Level>,
    /// Only lines that contain this text, ignoring case
    #[arg(long, value_name = "TEXT")]
    grep: Option<String>,
    /// Only the last lines, at most this number
    #[arg(short = 'n', long = "lines", default_value_t = 200)]
    lines: usize,
    /// Print each line as a JSON object
    #[arg(long)]
    json: bool,
    /// The stack file [default: waypost.toml in this folder or the nearest one above it]
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

impl Logs {
    pub(super) async fn run(self) -> CommandResult {
        let stack = StackArgs {
            file: self.file.clone(),
        };
        for name in &self.services {
            name_in_path(name)?;
        }
        let mut client = match (stack.connect().await, stack.file()) {
            (Ok(client), _) => client,
            (Err(CommandError::NothingThere(_)), Some(file)) if !self.follow => {
                return self.print_kept(&file);
            }
            (Err(error), _) => return Err(error),
        };
        let path = self.path();
        if !self.follow {
            let lines: Vec<LineView> = client.get_lines(&path).await.map_err(client_error)?;
            self.print_all(&lines)?;
            return Ok(ExitCode::SUCCESS);
        }
        let mut events = client.events(&path).await.map_err(client_error)?;
        let mut width = 0;
        while let Some(event) = events.next().await.map_err(client_error)? {
            let line: LineView = serde_json::from_str(&event.data).map_err(CommandError::other)?;
            width = width.max(line.instance.len());
            self.print(&line, width)?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// The request for the lines.
    fn path(&self) -> String {
        let mut path = format!("/api/logs?n={}&follow={}", self.lines, self.follow);
        let level = self.level.map(|level| level.to_string());
        for (name, value) in [
            ("service", Some(self.services.join(","))),
            ("since", self.since.clone()),
            ("level", level),
            ("q", self.grep.clone()),
        ] {
            if let Some(value) = value.filter(|value| !value.is_empty()) {
                let value = utf8_percent_encode(&value, NON_ALPHANUMERIC);
                path += &format!("&{name}={value}");
            }
        }
        path
    }

    /// Prints the stored output of the last runs.
    fn print_kept(&self, file: &std::path::Path) -> CommandResult {
        let folder = file.parent().unwrap_or(std::path::Path::new("."));
        let folder = log_folder(folder);
        let known = LogFiles::services(&folder);
        if known.is_empty() {
            let name =
                StackFile::read(file).map_or_else(|_| "the stack".to_owned(), |it| it.name());
            return Err(CommandError::NothingThere(format!(
                "`{name}` is not running, and {} has no logs; start it: waypost up",
                folder.display()
            )));
        }
        let since = self.since.as_deref().map(time).transpose()?;
        let wanted = self.grep.as_ref().map(|text| text.to_lowercase());
        let mut lines: Vec<LineView> = known
            .iter()
            .flat_map(|service| {
                let kept = LogFiles::read(&folder, service);
                kept.into_iter()
                    .map(move |line| (line.at, line.view(service)))
            })
            .filter(|(at, line)| {
                let names = &self.services;
                (names.is_empty()
                    || names.contains(&line.service)
                    || names.contains(&line.instance))
                    && since.is_none_or(|since| *at >= since)
                    && wanted
                        .as_ref()
                        .is_none_or(|text| line.text.to_lowercase().contains(text))
                    && self
                        .level
                        .is_none_or(|wanted| line.level.is_some_and(|it| it <= wanted))
            })
            .map(|(_, line)| line)
            .collect();
        // The times have the same format, so they can be compared as strings.
        lines.sort_by(|a, b| a.time.cmp(&b.time));
        lines.drain(..lines.len().saturating_sub(self.lines));
        self.print_all(&lines)?;
        Ok(ExitCode::SUCCESS)
    }

    fn print_all(&self, lines: &[LineView]) -> Result<(), CommandError> {
        let width = lines.iter().map(|line| line.instance.len()).max();
        let width = width.unwrap_or_default();
        lines.iter().try_for_each(|line| self.print(line, width))
    }

    fn print(&self, line: &LineView, width: usize) -> Result<(), CommandError> {
        if self.json {
            return print_json(&json!(line));
        }
        let name = Text::toned(Tone::Faint, format_args!("{:width$}  ", line.instance));
        let tone = match (line.stream, line.level) {
            (LineStream::Event, _) => Tone::Faint,
            (_, Some(Level::Error)) => Tone::Bad,
            (_, Some(Level::Warn)) => Tone::Caution,
            _ => Tone::Plain,
        };
        let mark = if line.stream == LineStream::Event {
            "── "
        } else {
            ""
        };
        let text = printable(&line.text, false);
        print_texts(&[name, Text::toned(tone, format_args!("{mark}{text}"))])
    }
}

/// Parses a time, or a duration before now.
fn time(text: &str) -> Result<SystemTime, CommandError> {
    let ago = humantime::parse_duration(text).ok();
    let ago = ago.and_then(|ago| SystemTime::now().checked_sub(ago));
    ago.or_else(|| humantime::parse_rfc3339_weak(text).ok())
        .ok_or_else(|| {
            CommandError::Invalid(format!(
                "--since: {text:?} is neither a duration such as 10m nor a time such as \
             2026-01-31T12:00:00Z"
            ))
        })
}
