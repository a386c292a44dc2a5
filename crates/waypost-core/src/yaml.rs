//! Parses YAML files, with the same limits and errors everywhere.

use std::fmt::Display;

use serde::de::DeserializeOwned;
use serde_saphyr::{Error, UserMessageFormatter};

use crate::error::ConfigError;

/// Parses YAML. `origin` says where the text comes from, usually the path of a file; an error adds line and
/// column to it.
///
/// The text may have any length and any number of aliases (`*name`), since programs that write YAML use
/// many aliases of one anchor. But all aliases together may stand for a million values at most, so that a short
/// file can't fill the memory, and lists and mappings may be nested 32 deep.
///
/// ```
/// # use std::collections::BTreeMap;
/// let ports: BTreeMap<String, u16> = waypost_core::parse_yaml("ports.yaml", "auth: 5001\n")?;
/// assert_eq!(ports["auth"], 5001);
///
/// let error = waypost_core::parse_yaml::<BTreeMap<String, u16>>("ports.yaml", "a: 1\nb: high\n");
/// assert_eq!(error.unwrap_err().location(), "ports.yaml:2:4");
/// # Ok::<(), waypost_core::ConfigError>(())
/// ```
///
/// # Errors
/// If the text is not YAML, doesn't describe a `T`, or exceeds the limits.
pub fn parse_yaml<T: DeserializeOwned>(origin: impl Display, yaml: &str) -> Result<T, ConfigError> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_depth: 32,
            max_events: usize::MAX,
            max_nodes: usize::MAX,
            max_aliases: usize::MAX,
            max_anchors: usize::MAX,
            max_merge_keys: usize::MAX,
            max_total_scalar_bytes: usize::MAX,
            enforce_alias_anchor_ratio: false,
        },
    };
    serde_saphyr::from_str_with_options(yaml, options).map_err(|error| located(&origin, &error))
}

fn located(origin: &dyn Display, error: &Error) -> ConfigError {
    let location = match error.location() {
        Some(place) => format!("{origin}:{}:{}", place.line(), place.column()),
        None => origin.to_string(),
    };
    ConfigError::new(location, problem(error))
}

/// Describes an error in terms of YAML instead of the parser.
fn problem(error: &Error) -> String {
    let error = error.without_snippet();
    match error {
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            return format!("the key {key:?} is there twice; keep one");
        }
        Error::MultipleDocuments { .. } => {
            return "it has several documents, separated by `---`; write one".into();
        }
        Error::Unexpected {
            expected: "mapping start",
            ..
        } => {
            return "expected a mapping, such as `name: value`".into();
        }
        Error::Unexpected {
            expected: "sequence start",
            ..
        } => {
            return "expected a list, such as `[a, b]`".into();
        }
        Error::Unexpected {
            expected: "string scalar",
            ..
        } => {
            return "expected a single value, not a list or a mapping".into();
        }
        Error::ExternallyTaggedEnumExpectedScalarOrMapping { .. } => {
            return "expected a single value or a mapping, not a list".into();
        }
        Error::UnexpectedValueForUnitEnumVariant { .. } => {
            return "there must be no value here".into();
        }
        Error::InvalidScalar { ty, .. } => {
            if let Some(expected) = scalar_named(ty) {
                return format!("expected {expected}");
            }
        }
        _ => {}
    }
    let text = error.to_string();
    if text.starts_with("budget breached: Depth") {
        return "it is nested too deeply".into();
    }
    // The only other limits are those on aliases.
    if ["budget breached", "alias replay"]
        .iter()
        .any(|limit| text.starts_with(limit))
    {
        return "its aliases (`*name`) stand for more than a million values; use fewer".into();
    }
    let mut text = error.render_with_formatter(&UserMessageFormatter);
    if let Some(place) = error.location() {
        let position = format!(" at line {}, column {}", place.line(), place.column());
        text.truncate(text.strip_suffix(&position).unwrap_or(&text).len());
    }
    match text.strip_prefix("invalid type: unit value, ") {
        Some(expected) => format!("there is no value; {expected}"),
        None => text,
    }
}

/// Describes the values of a scalar type that the parser calls by its Rust name.
fn scalar_named(name: &str) -> Option<&'static str> {
    Some(match name {
        "boolean" => "true or false",
        "floating point" => "a number",
        "u8" => "a whole number from 0 to 255",
        "u16" => "a whole number from 0 to 65535",
        "u32" => "a whole number from 0 to 4294967295",
        "u64" | "usize" => "a whole number of 0 or more",
        "i8" | "i16" | "i32" | "i64" | "isize" => "a whole number",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;
    use serde::de::IgnoredAny;

    use super::*;

    fn error(yaml: &str) -> String {
        parse_yaml::<IgnoredAny>("a.yaml", yaml)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn the_error_for_a_value_of_the_wrong_type_says_what_is_expected() {
        fn error_of<T: serde::de::DeserializeOwned>() -> String {
            let parsed = parse_yaml::<BTreeMap<String, T>>("a.yaml", "a: x\n");
            parsed.err().unwrap().to_string()
        }
        for (error, expected) in [
            (error_of::<bool>(), "true or false"),
            (error_of::<f64>(), "a number"),
            (error_of::<u8>(), "a whole number from 0 to 255"),
            (error_of::<u16>(), "a whole number from 0 to 65535"),
            (error_of::<u32>(), "a whole number from 0 to 4294967295"),
            (error_of::<u64>(), "a whole number of 0 or more"),
            (error_of::<i64>(), "a whole number"),
        ] {
            assert_eq!(error, format!("a.yaml:1:4: expected {expected}"));
        }
    }

    #[test]
    fn aliases_that_multiply_are_refused_in_plain_words() {
        let mut yaml = "a: &l0 [x]\n".to_owned();
        for level in 1..10 {
            let items = vec![format!("*l{}", level - 1); 9].join(", ");
            yaml += &format!("a{level}: &l{level} [{items}]\n");
        }
        let error = error(&yaml);
        assert!(error.starts_with("a.yaml:"), "{error}");
        assert!(error.contains("aliases (`*name`)"), "{error}");
    }

    #[test]
    fn deep_nesting_is_refused_in_plain_words() {
        let error = error(&format!("a: {}{}\n", "[".repeat(100), "]".repeat(100)));
        assert!(error.starts_with("a.yaml:1:"), "{error}");
        assert!(error.contains("nested too deeply"), "{error}");
    }

    #[test]
    fn problems_are_described_for_authors_of_yaml_and_not_of_programs() {
        type Ports = BTreeMap<String, u16>;
        #[derive(Debug, Deserialize)]
        enum Choice {
            One,
        }
        for (yaml, message) in [
            (
                "a: 1\na: 2\n",
                "a.yaml:2:1: the key \"a\" is there twice; keep one",
            ),
            (
                "a: 1\n---\nb: 2\n",
                "a.yaml:3:1: it has several documents, separated by `---`; write one",
            ),
            (
                "[]",
                "a.yaml:1:1: expected a mapping, such as `name: value`",
            ),
            (
                "a: [1]",
                "a.yaml:1:4: expected a single value, not a list or a mapping",
            ),
            ("~: 1", "a.yaml:1:1: null is not allowed here"),
            ("a: *b", "a.yaml:1:4: reference to unknown value"),
            (
                "a: 70000",
                "a.yaml:1:4: expected a whole number from 0 to 65535",
            ),
        ] {
            let error = parse_yaml::<Ports>("a.yaml", yaml).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
        let choice = parse_yaml::<Choice>("a.yaml", "[One]").unwrap_err();
        let expected = "expected a single value or a mapping, not a list";
        assert_eq!(choice.problem(), expected);
        let choice = parse_yaml::<Choice>("a.yaml", "One: 1").unwrap_err();
        assert_eq!(choice.problem(), "there must be no value here");
        let lists = parse_yaml::<Vec<String>>("a.yaml", "a: 1").unwrap_err();
        assert_eq!(lists.problem(), "expected a list, such as `[a, b]`");
        let empty = parse_yaml::<Vec<String>>("a.yaml", "[a, ~]").unwrap_err();
        assert!(!empty.problem().contains("Option"), "{empty}");
    }

    #[test]
    fn an_error_says_its_position_once() {
        let error = error("a: b\nc: [\n");
        assert!(error.starts_with("a.yaml:"), "{error}");
        assert!(!error.contains(" at line "), "{error}");
    }
}
