//! `waypost logs`

use std::path::{Path, PathBuf};
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
    fn print_kept(&self, file: &Path) -> CommandResult {
        let folder = file.parent().unwrap_or(Path::new("."));
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
        self.print_all(&self.kept_lines(&folder, &known)?)?;
        Ok(ExitCode::SUCCESS)
    }

    /// The stored lines of these services that are wanted, oldest first.
    fn kept_lines(&self, folder: &Path, known: &[String]) -> Result<Vec<LineView>, CommandError> {
        let since = self.since.as_deref().map(time).transpose()?;
        let wanted = self.grep.as_ref().map(|text| text.to_lowercase());
        let mut lines: Vec<LineView> = known
            .iter()
            .flat_map(|service| {
                let kept = LogFiles::read(folder, service);
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
        Ok(lines)
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
        print_texts(&texts(line, width))
    }
}

/// A line as it is printed: the name of its instance with this width, and its text.
fn texts(line: &LineView, width: usize) -> [Text; 2] {
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
    [name, Text::toned(tone, format_args!("{mark}{text}"))]
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn logs(services: &[&str]) -> Logs {
        Logs {
            services: services.iter().map(|name| (*name).to_owned()).collect(),
            follow: false,
            since: None,
            level: None,
            grep: None,
            lines: 200,
            json: false,
            file: None,
        }
    }

    #[test]
    fn the_request_has_the_options_that_were_given() {
        assert_eq!(logs(&[]).path(), "/api/logs?n=200&follow=false");
        let all = Logs {
            follow: true,
            since: Some("10m".to_owned()),
            level: Some(Level::Warn),
            grep: Some("a b&c".to_owned()),
            lines: 5,
            ..logs(&["web", "orders-1"])
        };
        let expected = "/api/logs?n=5&follow=true&service=web%2Corders%2D1&since=10m&level=warn\
                        &q=a%20b%26c";
        assert_eq!(all.path(), expected);
    }

    #[test]
    fn stored_lines_are_selected_like_those_of_a_running_stack() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| std::fs::write(dir.path().join(name), text).unwrap();
        write(
            "web.log",
            "2026-01-31T12:00:01.000Z web-1 stdout INFO one\n\
             2026-01-31T12:00:03.000Z web-2 stderr ERROR three\n",
        );
        write(
            "orders.log",
            "2026-01-31T12:00:02.000Z orders stdout WARN Two\n\
             2026-01-31T12:00:04.000Z orders event stopped\n",
        );
        let known = ["orders", "web"].map(str::to_owned);
        let texts = |logs: Logs| {
            let lines = logs.kept_lines(dir.path(), &known).unwrap();
            lines
                .into_iter()
                .map(|line| line.text)
                .collect::<Vec<_>>()
                .join(", ")
        };
        let since = |since: &str| Logs {
            since: Some(since.to_owned()),
            ..logs(&[])
        };
        let level = |level| Logs {
            level: Some(level),
            ..logs(&[])
        };
        let grep = |text: &str| Logs {
            grep: Some(text.to_owned()),
            ..logs(&[])
        };
        let lines = |lines| Logs { lines, ..logs(&[]) };
        for (logs, expected) in [
            (logs(&[]), "INFO one, WARN Two, ERROR three, stopped"),
            (logs(&["web"]), "INFO one, ERROR three"),
            (logs(&["web-2", "orders"]), "WARN Two, ERROR three, stopped"),
            (logs(&["we"]), ""),
            (since("2026-01-31T12:00:03Z"), "ERROR three, stopped"),
            (since("2026-01-31T12:00:03.001Z"), "stopped"),
            (level(Level::Error), "ERROR three"),
            (level(Level::Warn), "WARN Two, ERROR three"),
            (grep("tWO"), "WARN Two"),
            (lines(2), "ERROR three, stopped"),
            (lines(0), ""),
        ] {
            assert_eq!(texts(logs), expected);
        }
        let error = since("soon").kept_lines(dir.path(), &known).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("--since: \"soon\" is neither"),
            "{error}"
        );
    }

    #[test]
    fn a_time_is_a_duration_before_now_or_a_date() {
        let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_769_860_800);
        assert_eq!(time("2026-01-31T12:00:00Z").unwrap(), noon);
        assert_eq!(time("2026-01-31 12:00:00").unwrap(), noon);
        let ago = time("1h").unwrap().elapsed().unwrap();
        assert!(ago >= Duration::from_secs(3600), "{ago:?}");
    }

    #[test]
    fn a_line_is_coloured_by_its_level_and_marked_if_it_is_an_event() {
        for (stream, level, tone, text) in [
            (LineStream::Stdout, None, Tone::Plain, "text"),
            (LineStream::Stdout, Some(Level::Info), Tone::Plain, "text"),
            (LineStream::Stderr, Some(Level::Warn), Tone::Caution, "text"),
            (LineStream::Stdout, Some(Level::Error), Tone::Bad, "text"),
            (
                LineStream::Event,
                Some(Level::Error),
                Tone::Faint,
                "── text",
            ),
        ] {
            let line: LineView = serde_json::from_value(json!({
                "id": 1, "time": "", "service": "web", "instance": "web-1", "stream": stream,
                "level": level, "text": "\u{1b}[31mtext",
            }))
            .unwrap();
            let expected = [
                Text::toned(Tone::Faint, "web-1     "),
                Text::toned(tone, text),
            ];
            assert_eq!(texts(&line, 8), expected, "{stream:?} {level:?}");
        }
    }
}
