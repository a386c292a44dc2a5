//! A sink for terminals: each line is prefixed with the name of its instance.

use std::ffi::OsString;
use std::io;
use std::io::{IsTerminal, Write};

use super::line::{Line, LogSink, Stream};
use super::sanitize::sanitize;

/// Writes each line, prefixed with the name of its instance:
///
/// ```text
/// registry    | listening on 127.0.0.1:8500
/// ai-models-1 | 2 models ready
/// ```
///
/// On a terminal, the names are coloured and the programs' own colours are kept; elsewhere both are
/// left out. Other escape sequences are removed and control characters are replaced, so that a
/// program cannot move the cursor, set the title or hide the output of others.
#[derive(Debug)]
pub struct Console<W = io::Stdout> {
    writer: W,
    colour: bool,
    names: Vec<String>,
    width: usize,
    buffer: Vec<u8>,
}

impl Console {
    /// Writes to standard output, with colours if it is a terminal. `NO_COLOR`
    /// (<https://no-color.org>) and `TERM=dumb` turn the colours off.
    pub fn stdout() -> Self {
        let stdout = io::stdout();
        let colour = stdout.is_terminal() && allows_colours(|name| std::env::var_os(name));
        Self::new(stdout, colour)
    }
}

/// Whether the environment allows colours.
fn allows_colours(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    let is_refused = variable("NO_COLOR").is_some_and(|value| !value.is_empty());
    let is_dumb = variable("TERM").is_some_and(|term| term == "dumb");
    !is_refused && !is_dumb
}

impl<W: Write> Console<W> {
    /// Writes to `writer`, with or without colours.
    pub fn new(writer: W, colour: bool) -> Self {
        Self {
            writer,
            colour,
            names: Vec::new(),
            width: 0,
            buffer: Vec::new(),
        }
    }

    fn render(&mut self, line: &Line) {
        /// Cyan, yellow, green, magenta, blue, red: legible on both black and white.
        const COLOURS: [u8; 6] = [36, 33, 32, 35, 34, 31];
        const RESET: &str = "\x1b[0m";
        const DIM: &str = "\x1b[2m";

        let (name, width) = (&line.instance, self.width.max(line.instance.len()));
        let text = sanitize(&line.text, self.colour);
        let mark = if line.truncated {
            " … (truncated at 64 KiB)"
        } else {
            ""
        };
        let out = &mut self.buffer;
        // Writing to a vector cannot fail.
        let _ = if self.colour {
            let index = self.names.iter().position(|known| **known == **name);
            let colour = COLOURS[index.unwrap_or(0) % COLOURS.len()];
            let intensity = if line.stream == Stream::Runner {
                DIM
            } else {
                ""
            };
            writeln!(
                out,
                "\x1b[{colour}m{name:width$} |{RESET} {intensity}{text}{RESET}{mark}"
            )
        } else {
            writeln!(out, "{name:width$} | {text}{mark}")
        };
    }
}

impl<W: Write + Send + 'static> LogSink for Console<W> {
    fn set_instances(&mut self, names: &[String]) {
        self.names = names.to_vec();
        self.width = names.iter().map(String::len).max().unwrap_or(0);
    }

    fn write(&mut self, lines: &[Line]) -> io::Result<()> {
        self.buffer.clear();
        for line in lines {
            self.render(line);
        }
        self.writer.write_all(&self.buffer)?;
        self.writer.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(instance: &str, text: &str) -> Line {
        Line {
            instance: instance.into(),
            ..Line::sample(text)
        }
    }

    fn written(colour: bool, lines: &[Line]) -> String {
        let mut console = Console::new(Vec::new(), colour);
        console.set_instances(&["registry".to_owned(), "ai-models-1".to_owned()]);
        console.write(lines).unwrap();
        String::from_utf8(console.writer).unwrap()
    }

    #[test]
    fn names_are_aligned() {
        let text = written(
            false,
            &[
                line("registry", "up"),
                line("ai-models-1", "\x1b[1mready\x1b[0m"),
            ],
        );
        assert_eq!(text, "registry    | up\nai-models-1 | ready\n");
    }

    #[test]
    fn colours_are_reset_at_the_end_of_each_line() {
        let text = written(true, &[line("ai-models-1", "\x1b[1mready")]);
        assert_eq!(text, "\x1b[33mai-models-1 |\x1b[0m \x1b[1mready\x1b[0m\n");
    }

    #[test]
    fn the_colours_tell_the_instances_apart_and_dim_the_runner() {
        let event = Line {
            stream: Stream::Runner,
            ..line("registry", "healthy")
        };
        let text = written(true, &[event, line("ai-models-1", "up"), line("new", "up")]);
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[0],
            "\x1b[36mregistry    |\x1b[0m \x1b[2mhealthy\x1b[0m"
        );
        assert_eq!(lines[1], "\x1b[33mai-models-1 |\x1b[0m up\x1b[0m");
        assert_eq!(lines[2], "\x1b[36mnew         |\x1b[0m up\x1b[0m");
    }

    #[test]
    fn the_environment_can_refuse_colours() {
        for (variables, expected) in [
            (&[][..], true),
            (&[("TERM", "xterm")], true),
            (&[("TERM", "dumb")], false),
            (&[("NO_COLOR", "1")], false),
            (&[("NO_COLOR", "")], true),
        ] {
            let variable = |wanted: &str| {
                let found = variables.iter().find(|(name, _)| *name == wanted);
                found.map(|(_, value)| OsString::from(value))
            };
            assert_eq!(allows_colours(variable), expected, "{variables:?}");
        }
    }

    #[test]
    fn a_truncated_line_is_marked() {
        let truncated = Line {
            truncated: true,
            ..line("registry", "xxx")
        };
        assert_eq!(
            written(false, &[truncated]),
            "registry    | xxx … (truncated at 64 KiB)\n"
        );
    }
}
