//! Finds the level of a line of output in its text.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::sanitize::sanitize;

/// How severe a line is, ordered from the most to the least severe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// An error, or worse.
    Error,
    /// A warning.
    Warn,
    /// Information.
    Info,
    /// Details for debugging.
    Debug,
    /// Everything.
    Trace,
}

/// The names of the levels in the logs of common libraries and languages.
const WORDS: [(&str, Level); 16] = [
    ("error", Level::Error),
    ("err", Level::Error),
    ("fatal", Level::Error),
    ("critical", Level::Error),
    ("crit", Level::Error),
    ("panic", Level::Error),
    ("severe", Level::Error),
    ("emerg", Level::Error),
    ("warn", Level::Warn),
    ("warning", Level::Warn),
    ("info", Level::Info),
    ("notice", Level::Info),
    ("debug", Level::Debug),
    ("dbg", Level::Debug),
    ("trace", Level::Trace),
    ("verbose", Level::Trace),
];

impl Level {
    /// The level that a line names near its beginning: a word in capitals (`ERROR`), in brackets
    /// (`[warn]`) or before a colon (`info:`), or the value of `level` in a line of JSON or logfmt.
    pub(crate) fn of(text: &str) -> Option<Self> {
        /// A level name after these bytes is considered part of the message.
        const LOOKED_AT: usize = 96;

        let text = sanitize(text, false);
        let end = (0..=LOOKED_AT.min(text.len()))
            .rev()
            .find(|&end| text.is_char_boundary(end))?;
        let text = text[..end].trim_start();
        if text.starts_with("Traceback (most recent call last)") || text.contains("' panicked at ")
        {
            return Some(Self::Error);
        }
        if let Some(level) = named_field(text) {
            return Some(level);
        }
        let mut rest = text;
        while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic()) {
            let before = rest[..start].chars().next_back();
            rest = &rest[start..];
            let length = rest
                .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            let (word, after) = rest.split_at(length);
            let is_shouted = word.len() > 2 && word.chars().all(|c| c.is_ascii_uppercase());
            let is_marked = before == Some('[') && after.starts_with(']');
            let is_label = after.starts_with(':') && !after.starts_with("::");
            if is_shouted || is_marked || is_label {
                // `TypeError:` and the like.
                let level = of_word(word).or_else(|| {
                    let is_error =
                        is_label && (word.ends_with("Error") || word.ends_with("Exception"));
                    is_error.then_some(Self::Error)
                });
                if level.is_some() {
                    return level;
                }
            }
            rest = after;
        }
        None
    }
}

fn of_word(word: &str) -> Option<Level> {
    let found = WORDS
        .iter()
        .find(|(known, _)| word.eq_ignore_ascii_case(known));
    found.map(|(_, level)| *level)
}

/// The value of `level=…` or `"level":"…"`.
fn named_field(text: &str) -> Option<Level> {
    ["level", "severity", "lvl"].into_iter().find_map(|key| {
        let (_, rest) = text.split_once(key)?;
        let rest = rest.strip_prefix('"').unwrap_or(rest);
        let value = rest.trim_start().strip_prefix(['=', ':'])?;
        let value = value.trim_start().trim_start_matches('"');
        let end = value
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(value.len());
        of_word(&value[..end])
    })
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        })
    }
}

impl FromStr for Level {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        of_word(text).ok_or_else(|| {
            format!("{text:?} is not a level; use error, warn, info, debug or trace")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_level_is_found_in_the_formats_of_common_loggers() {
        for (line, level) in [
            (
                "2026-11-29T05:42:17.1Z  INFO web: listening",
                Some(Level::Info),
            ),
            ("\x1b[31mERROR\x1b[0m no database", Some(Level::Error)),
            ("[warn] slow", Some(Level::Warn)),
            ("info: started", Some(Level::Info)),
            (
                "INFO:     127.0.0.1:5000 - \"GET / HTTP/1.1\" 200 OK",
                Some(Level::Info),
            ),
            ("level=debug msg=\"x\"", Some(Level::Debug)),
            (
                "{\"time\":1,\"level\":\"error\",\"msg\":\"x\"}",
                Some(Level::Error),
            ),
            ("Error: STRIPE_KEY is not set", Some(Level::Error)),
            ("TypeError: x is undefined", Some(Level::Error)),
            (
                "thread 'main' panicked at src/main.rs:1:1:",
                Some(Level::Error),
            ),
            ("Traceback (most recent call last):", Some(Level::Error)),
            ("GET /errors 200", None),
            ("the error was small", None),
            ("std::error::Error", None),
            ("", None),
            ("é", None),
            ("  WARN indented", Some(Level::Warn)),
            ("java.lang.RuntimeException: x", Some(Level::Error)),
            ("Exception in thread", None),
            ("severity = critical", Some(Level::Error)),
            ("lvl=dbg", Some(Level::Debug)),
            ("{\"level\" : \"trace\"}", Some(Level::Trace)),
            ("[notice](x)", Some(Level::Info)),
            ("warn slow", None),
            ("a: b", None),
        ] {
            assert_eq!(Level::of(line), level, "{line}");
        }
        // Further along a line, such a word is a part of the message.
        let named_at = |column: usize| format!("{}ERROR", "-".repeat(column));
        assert_eq!(Level::of(&named_at(91)), Some(Level::Error));
        assert_eq!(Level::of(&named_at(92)), None);
        assert_eq!(Level::of(&format!("{}ERROR", "é".repeat(48))), None);
    }

    #[test]
    fn a_level_is_written_and_read_by_its_name() {
        for name in ["error", "warn", "info", "debug", "trace"] {
            assert_eq!(name.parse::<Level>().unwrap().to_string(), name);
        }
        assert_eq!("WARNING".parse::<Level>(), Ok(Level::Warn));
        let error = "loud".parse::<Level>().unwrap_err();
        let expected = "\"loud\" is not a level; use error, warn, info, debug or trace";
        assert_eq!(error, expected);
    }
}
