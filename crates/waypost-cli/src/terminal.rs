//! All output to stdout and stderr goes through this module. Much of it comes from a registry, so
//! everything that could control a terminal or forge a line is escaped, regardless of which code
//! prints it.

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::io::Write;

use serde_json::Value;

use crate::error::CommandError;

/// Prints one line of a result to stdout. Line breaks in the text are escaped.
///
/// # Errors
/// [`CommandError::StdoutClosed`] if the reader has closed stdout; another one if stdout can't be written.
pub(crate) fn print_line(line: impl fmt::Display) -> Result<(), CommandError> {
    write_stdout(&format!("{}\n", escaped(&line.to_string())))
}

/// Prints text of this program, which may contain line breaks, to stdout without escaping.
///
/// # Errors
/// The same as for [`print_line`].
pub(crate) fn print_verbatim(text: &str) -> Result<(), CommandError> {
    write_stdout(text)
}

/// Prints JSON on one line, so that a stream of values can be read line by line.
///
/// # Errors
/// The same as for [`print_line`].
pub(crate) fn print_json(value: &Value) -> Result<(), CommandError> {
    write_stdout(&format!("{}\n", escaped_json(&value.to_string())))
}

/// Prints a line of a command that continues even if stdout is closed.
pub(crate) fn announce(line: impl fmt::Display) {
    let _ = print_line(line);
}

/// Like [`announce`], for text of this program with line breaks in it.
pub(crate) fn announce_verbatim(text: &str) {
    let _ = write_stdout(text);
}

/// Prints an error to stderr. Further lines are indented, so that a line break in a text from outside
/// can't begin a message of its own.
pub(crate) fn print_error(error: impl fmt::Display) {
    // A failure can't be reported anywhere.
    let _ = io::stderr().write_all(error_text(&error.to_string()).as_bytes());
}

fn error_text(error: &str) -> String {
    let lines: Vec<_> = error.lines().map(escaped).collect();
    format!("waypost: {}\n", lines.join("\n  "))
}

fn write_stdout(text: &str) -> Result<(), CommandError> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush())
        .map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => CommandError::StdoutClosed,
            _ => CommandError::Other(format!("can't write to stdout: {error}")),
        })
}

/// The text with everything that could control a terminal, break the line or reorder its characters
/// replaced by a Rust escape such as `\n` or `\u{1b}`.
pub(crate) fn escaped(text: &str) -> Cow<'_, str> {
    if !text.contains(is_unsafe) {
        return Cow::Borrowed(text);
    }
    let mut result = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '\n' => result.push_str("\\n"),
            '\r' => result.push_str("\\r"),
            '\t' => result.push_str("\\t"),
            c if is_unsafe(c) => result.extend(c.escape_unicode()),
            c => result.push(c),
        }
    }
    Cow::Owned(result)
}

/// Equivalent JSON that also escapes the characters that [`escaped`] escapes but JSON doesn't. They can
/// only occur inside strings.
fn escaped_json(json: &str) -> Cow<'_, str> {
    if !json.contains(is_unsafe) {
        return Cow::Borrowed(json);
    }
    let mut result = String::with_capacity(json.len() + 16);
    for c in json.chars() {
        if is_unsafe(c) {
            for unit in c.encode_utf16(&mut [0; 2]) {
                result.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            result.push(c);
        }
    }
    Cow::Owned(result)
}

/// Whether a character is a control character (C0, C1, DEL), a line or paragraph separator, or an
/// invisible format character, among them the bidirectional controls (UAX #9).
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_control_a_terminal_are_escaped() {
        for (text, expected) in [
            ("web-1 café 東京 🚀", "web-1 café 東京 🚀"),
            ("a\x1b[2J", "a\\u{1b}[2J"),
            ("a\nweb-2  http://evil\r\t", "a\\nweb-2  http://evil\\r\\t"),
            ("\u{9b}2J\u{7f}\0", "\\u{9b}2J\\u{7f}\\u{0}"),
            ("a\u{202e}b\u{2066}c", "a\\u{202e}b\\u{2066}c"),
            ("a\u{2028}b\u{2029}\u{85}", "a\\u{2028}b\\u{2029}\\u{85}"),
            (
                "a\u{200b}\u{feff}\u{e0041}",
                "a\\u{200b}\\u{feff}\\u{e0041}",
            ),
        ] {
            assert_eq!(escaped(text), expected);
        }
    }

    #[test]
    fn invisible_characters_are_unsafe_and_their_neighbours_are_not() {
        for range in [
            0..=0x1f,
            0x7f..=0x9f,
            0xad..=0xad,
            0x61c..=0x61c,
            0x180e..=0x180e,
            0x200b..=0x200f,
            0x2028..=0x202e,
            0x2060..=0x206f,
            0xfeff..=0xfeff,
            0xfff9..=0xfffb,
            0xe0000..=0xe007f,
        ] {
            let (first, last): (u32, u32) = (*range.start(), *range.end());
            for (code, expected) in [
                (first.checked_sub(1), false),
                (Some(first), true),
                (Some(last), true),
                (Some(last + 1), false),
            ] {
                let Some(c) = code.and_then(char::from_u32) else {
                    continue;
                };
                assert_eq!(
                    is_unsafe(c),
                    expected,
                    "{:?}",
                    c.escape_unicode().to_string()
                );
            }
        }
    }

    #[test]
    fn json_keeps_its_meaning_when_it_is_escaped() {
        let value = serde_json::json!({ "id": "a\u{9b}\u{202e}\u{e0041}\x1b\n\"é" });
        let text = value.to_string();
        let printed = escaped_json(&text);
        assert!(!printed.contains(is_unsafe), "{printed}");
        assert_eq!(serde_json::from_str::<Value>(&printed).unwrap(), value);
    }

    #[test]
    fn a_line_break_in_an_error_does_not_start_a_new_message() {
        assert_eq!(
            error_text("refused: \x1b[31mno\nwaypost: all is well\n"),
            "waypost: refused: \\u{1b}[31mno\n  waypost: all is well\n"
        );
    }
}
