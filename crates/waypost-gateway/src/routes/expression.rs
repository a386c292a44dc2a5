//! Regular expressions that have to match a text as a whole.

use regex::{Regex, RegexBuilder};

/// The largest compiled expression, in bytes.
const MAX_SIZE: usize = 1 << 20;

/// A regular expression in the syntax of the crate `regex`. Matching takes time linear in the length of the text.
#[derive(Clone, Debug)]
pub(crate) struct Expression {
    text: String,
    regex: Regex,
}

impl Expression {
    /// # Errors
    /// What is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        // Parsed by itself first, so that a stray `)` can't end the group below.
        let build = |text: &str| RegexBuilder::new(text).size_limit(MAX_SIZE).build();
        build(text).map_err(|error| format!("{text:?} is not a regular expression: {error}"))?;
        let regex = build(&format!("^(?:{text})$"));
        Ok(Self {
            regex: regex.map_err(|error| format!("{text:?}: {error}"))?,
            text: text.to_owned(),
        })
    }

    pub(crate) fn matches(&self, text: &str) -> bool {
        self.regex.is_match(text)
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Expression {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_matches_the_whole_text() {
        let expression = Expression::parse("/users/[0-9]+|/all").unwrap();
        for (text, matches) in [
            ("/users/7", true),
            ("/all", true),
            ("/users/7/x", false),
            ("x/all", false),
        ] {
            assert_eq!(expression.matches(text), matches, "{text}");
        }
        assert_eq!(expression.as_str(), "/users/[0-9]+|/all");
        let equal = |text: &str| expression == Expression::parse(text).unwrap();
        assert!(equal("/users/[0-9]+|/all"));
        assert!(!equal("/users/[0-9]+"), "another set of paths");
        for bad in ["(", "a)|(b", "\\p{unknown}"] {
            assert!(Expression::parse(bad).is_err(), "{bad}");
        }
    }
}
