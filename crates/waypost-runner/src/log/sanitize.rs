//! Removes sequences with which a program could control the terminal.

use std::borrow::Cow;

/// The text with nothing that could control a terminal: without escape sequences, except those for
/// colours if `colour` is set, and with other control characters replaced by `U+FFFD`.
///
/// ```
/// assert_eq!(waypost_runner::printable("\x1b[31mred\x1b[0m\x07", false), "red\u{fffd}");
/// ```
pub fn printable(text: &str, colour: bool) -> Cow<'_, str> {
    sanitize(text, colour)
}

/// The text without escape sequences, except those for colours if `colour` is set, and with every
/// other control character except the tab replaced by `U+FFFD`, as well as separators of lines and the
/// characters that change the direction of text.
pub(crate) fn sanitize(text: &str, colour: bool) -> Cow<'_, str> {
    if !text.contains(|c: char| !is_printable(c)) {
        return Cow::Borrowed(text);
    }
    let mut sanitized = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        if first == '\x1b' {
            let sequence = escape_sequence(rest);
            if colour && sequence.starts_with("\x1b[") && sequence.ends_with('m') {
                sanitized.push_str(sequence);
            }
            rest = &rest[sequence.len()..];
        } else {
            sanitized.push(if is_printable(first) {
                first
            } else {
                char::REPLACEMENT_CHARACTER
            });
            rest = &rest[first.len_utf8()..];
        }
    }
    Cow::Owned(sanitized)
}

fn is_printable(c: char) -> bool {
    let is_separator = matches!(c, '\u{2028}' | '\u{2029}');
    // The controls of the bidirectional algorithm (UAX #9).
    let is_bidi = matches!(
        c,
        '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
    );
    c == '\t' || !(c.is_control() || is_separator || is_bidi)
}

/// The escape sequence (ECMA-48) at the beginning of `text`. An incomplete one extends to the end of
/// the text.
fn escape_sequence(text: &str) -> &str {
    let body = &text[1..];
    let length = match body.chars().next() {
        // A control sequence has parameters and ends with a byte from `@` to `~`.
        Some('[') => body[1..]
            .find(|c: char| !(' '..='?').contains(&c))
            .map(|end| {
                let complete = matches!(body.as_bytes()[1 + end], b'@'..=b'~');
                1 + end + usize::from(complete)
            }),
        // A control string, such as a title or a link, ends with BEL or ESC \.
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
    use super::*;

    #[test]
    fn escape_sequences_and_control_characters_are_removed() {
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
            (
                "a\u{202e}b\u{2028}c",
                "a\u{fffd}b\u{fffd}c",
                "a\u{fffd}b\u{fffd}c",
            ),
            ("end\x1b", "end", "end"),
            ("end\x1b[12", "end", "end"),
            ("\x1bcé", "é", "é"),
            ("\x1b[é1m", "é1m", "é1m"),
            // Each kind of control string, with each of its ends.
            ("\x1bPa\x1b\\b", "b", "b"),
            ("\x1bXa\x07b", "b", "b"),
            ("\x1b^a\x1b\\b\x07", "b\u{fffd}", "b\u{fffd}"),
            ("\x1b_a\x07b\x1b\\", "b", "b"),
            ("\x1b]0;no end", "", ""),
            // The first and the last byte that can end a control sequence.
            ("\x1b[1@a\x1b[1~b", "ab", "ab"),
            ("\x1b[ ?ma", "a", "\x1b[ ?ma"),
        ] {
            assert_eq!(sanitize(dirty, false), plain, "{dirty:?}");
            assert_eq!(sanitize(dirty, true), coloured, "{dirty:?}");
        }
    }

    #[test]
    fn characters_that_change_the_direction_of_text_are_replaced() {
        for (first, last) in [
            ('\u{61c}', '\u{61c}'),
            ('\u{200e}', '\u{200f}'),
            ('\u{2028}', '\u{2029}'),
            ('\u{202a}', '\u{202e}'),
            ('\u{2066}', '\u{2069}'),
        ] {
            for c in [first, last] {
                assert!(!is_printable(c), "{}", c.escape_unicode());
            }
        }
        for c in [
            '\t', ' ', 'é', '東', '\u{61d}', '\u{200d}', '\u{2010}', '\u{2065}', '\u{206a}',
        ] {
            assert!(is_printable(c), "{}", c.escape_unicode());
        }
    }
}
