//! Lines for people: the instance's name in front, aligned and coloured on a terminal.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use super::{Line, LogSink, Stream};

/// Writes each line with its instance's name in front:
///
/// ```text
/// registry    | listening on 127.0.0.1:8500
/// ai-models-1 | 2 models ready
/// ```
///
/// On a terminal the names are coloured and the processes' own colours are kept; elsewhere both are
/// left out. Other control characters and escape sequences never reach the terminal: a process can't
/// move the cursor, set the title or hide what its neighbours wrote.
#[derive(Debug)]
pub struct Console<W = io::Stdout> {
    writer: W,
    colour: bool,
    names: Vec<String>,
    width: usize,
    buffer: Vec<u8>,
}

impl Console {
    /// Writes to standard output, in colour if that is a terminal. `NO_COLOR` (<https://no-color.org>)
    /// and `TERM=dumb` turn colour off.
    pub fn stdout() -> Self {
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        let stdout = io::stdout();
        let colour = stdout.is_terminal() && !set("NO_COLOR") && !dumb;
        Self::new(stdout, colour)
    }
}

impl<W: Write> Console<W> {
    /// Writes to `writer`, in colour or not.
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
        /// Cyan, yellow, green, magenta, blue, red: those that can be read on black and on white.
        const COLOURS: [u8; 6] = [36, 33, 32, 35, 34, 31];
        const RESET: &str = "\x1b[0m";
        const DIM: &str = "\x1b[2m";

        let width = self.width.max(line.instance.len());
        let text = clean(&line.text, self.colour);
        let mark = if line.cut { " … (cut at 64 KiB)" } else { "" };
        let out = &mut self.buffer;
        // Writing to a vector can't fail.
        let _ = if self.colour {
            let index = self
                .names
                .iter()
                .position(|name| **name == *line.instance)
                .unwrap_or(0);
            let colour = COLOURS[index % COLOURS.len()];
            let tone = if line.stream == Stream::Runner {
                DIM
            } else {
                ""
            };
            let name = &line.instance;
            writeln!(
                out,
                "\x1b[{colour}m{name:width$} |{RESET} {tone}{text}{RESET}{mark}"
            )
        } else {
            writeln!(out, "{:width$} | {text}{mark}", line.instance)
        };
    }
}

impl<W: Write + Send + 'static> LogSink for Console<W> {
    fn names(&mut self, names: &[String]) {
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

/// The text without escape sequences, except colours if they are wanted, and with every other
/// control character but the tab made visible as `U+FFFD`.
pub(crate) fn clean(text: &str, colour: bool) -> Cow<'_, str> {
    if !text.contains(|c: char| c.is_control() && c != '\t') {
        return Cow::Borrowed(text);
    }
    let mut cleaned = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if first == '\x1b' {
            let sequence = escape_sequence(rest);
            if colour && sequence.starts_with("\x1b[") && sequence.ends_with('m') {
                cleaned.push_str(sequence);
            }
            rest = &rest[sequence.len()..];
        } else {
            let visible = !first.is_control() || first == '\t';
            cleaned.push(if visible {
                first
            } else {
                char::REPLACEMENT_CHARACTER
            });
            rest = &rest[first.len_utf8()..];
        }
    }
    Cow::Owned(cleaned)
}

/// The escape sequence (ECMA-48) that `text` begins with; one that is not complete ends with the text.
fn escape_sequence(text: &str) -> &str {
    let body = &text[1..];
    let length = match body.chars().next() {
        // A control sequence is made of parameters and ends with a byte from `@` to `~`.
        Some('[') => body[1..]
            .find(|c: char| !(' '..='?').contains(&c))
            .map(|end| {
                let complete = matches!(body.as_bytes()[1 + end], b'@'..=b'~');
                1 + end + usize::from(complete)
            }),
        // A control string (title, link and so on) ends with BEL or ESC \.
        Some(']' | 'P' | 'X' | '^' | '_') => {
            let bell = body.find('\x07').map(|end| end + 1);
            let terminator = body.find("\x1b\\").map(|end| end + 2);
            [bell, terminator].into_iter().flatten().min()
        }
        Some(other) => Some(other.len_utf8()),
        None => Some(0),
    };
    length.map_or(text, |length| &text[..1 + length])
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn line(instance: &str, text: &str) -> Line {
        let at = SystemTime::UNIX_EPOCH;
        Line {
            instance: instance.into(),
            stream: Stream::Stdout,
            at,
            text: text.into(),
            cut: false,
        }
    }

    fn written(colour: bool, lines: &[Line]) -> String {
        let mut console = Console::new(Vec::new(), colour);
        console.names(&["registry".to_owned(), "ai-models-1".to_owned()]);
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
    fn a_terminal_gets_colours_and_nothing_leaks_into_the_next_line() {
        let text = written(true, &[line("ai-models-1", "\x1b[1mready")]);
        assert_eq!(text, "\x1b[33mai-models-1 |\x1b[0m \x1b[1mready\x1b[0m\n");
    }

    #[test]
    fn a_cut_line_says_so() {
        let cut = Line {
            cut: true,
            ..line("registry", "xxx")
        };
        assert_eq!(
            written(false, &[cut]),
            "registry    | xxx … (cut at 64 KiB)\n"
        );
    }

    #[test]
    fn a_process_cannot_drive_the_terminal() {
        for (dirty, plain, coloured) in [
            ("a\tb", "a\tb", "a\tb"),
            (
                "\x1b[2J\x1b[1;31mred\x1b[0m\x1b[H",
                "red",
                "\x1b[1;31mred\x1b[0m",
            ),
            ("\x1b]0;title\x07text", "text", "text"),
            ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link", "link"),
            (
                "a\rb\x08\x07\u{9b}",
                "a\u{fffd}b\u{fffd}\u{fffd}\u{fffd}",
                "a\u{fffd}b\u{fffd}\u{fffd}\u{fffd}",
            ),
            ("end\x1b", "end", "end"),
            ("end\x1b[12", "end", "end"),
            ("\x1bcé", "é", "é"),
            ("\x1b[é1m", "é1m", "é1m"),
        ] {
            assert_eq!(clean(dirty, false), plain, "{dirty:?}");
            assert_eq!(clean(dirty, true), coloured, "{dirty:?}");
        }
    }
}
