//! The conditions that filter expressions are parsed to.

use regex::Regex;
use serde_json::Value;

use super::pattern::PatternCompiler;
use super::schema::{Operator, Shape};
use crate::go_compat;

#[derive(Debug)]
pub(super) enum Condition {
    Not(Box<Condition>),
    And(Vec<Condition>),
    Or(Vec<Condition>),
    Test(Test),
}

/// A condition on the value that a selector selects.
#[derive(Debug)]
pub(super) struct Test {
    selector: Vec<String>,
    shape: &'static Shape,
    predicate: Predicate,
    /// For `!=`, `not in`, `not contains`, `is not empty` and `not matches`.
    negated: bool,
}

#[derive(Debug)]
enum Predicate {
    Equals(Value),
    Contains(String),
    IsEmpty,
    Matches(Regex),
}

/// Why a well-formed test is refused.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Invalid(pub String);

impl Condition {
    pub(super) fn matches(&self, record: &Value) -> bool {
        match self {
            Self::Not(inner) => !inner.matches(record),
            Self::And(all) => all.iter().all(|condition| condition.matches(record)),
            Self::Or(any) => any.iter().any(|condition| condition.matches(record)),
            Self::Test(test) => test.matches(record, test.shape, &test.selector),
        }
    }
}

impl Test {
    /// Checks that the selector, the operator and the value fit the shape.
    pub(super) fn new(
        shape: &'static Shape,
        selector: Vec<String>,
        operator: Operator,
        value: String,
        negated: bool,
        patterns: &mut PatternCompiler,
    ) -> Result<Self, Invalid> {
        let mut leaf = shape;
        for (i, name) in selector.iter().enumerate() {
            let below = leaf.below(name);
            leaf = below
                .ok_or_else(|| Invalid(format!("no such field: `{}`", selector[..=i].join("."))))?;
        }
        let path = selector.join(".");
        if !leaf.supports(operator) {
            let what = leaf.describe();
            return Err(Invalid(format!(
                "the operator does not apply to `{path}`, {what}"
            )));
        }
        let predicate = match operator {
            Operator::Equal => {
                let wanted = match leaf {
                    Shape::Number => parse_integer(&value).map(Value::from),
                    Shape::Bool => go_compat::parse_bool(&value).map(Value::from),
                    _ => Some(Value::from(value.as_str())),
                };
                Predicate::Equals(wanted.ok_or_else(|| {
                    let what = leaf.describe();
                    Invalid(format!(
                        "{value:?} cannot be compared with `{path}`, {what}"
                    ))
                })?)
            }
            Operator::Contains | Operator::In => Predicate::Contains(value),
            Operator::IsEmpty => Predicate::IsEmpty,
            Operator::Matches => Predicate::Matches(patterns.compile(&value).map_err(Invalid)?),
        };
        Ok(Self {
            selector,
            shape,
            predicate,
            negated,
        })
    }

    /// Follows the path into the record. In a list, one matching item is enough.
    fn matches(&self, value: &Value, shape: &Shape, path: &[String]) -> bool {
        let Some((name, deeper)) = path.split_first() else {
            return self.leaf_matches(value) != self.negated;
        };
        match shape {
            Shape::List(item) => {
                let mut items = value.as_array().into_iter().flatten();
                items.any(|value| self.matches(value, item, path))
            }
            Shape::Map(of) => match value.get(name) {
                Some(value) => self.matches(value, of, deeper),
                None => self.matches_without_key(),
            },
            Shape::Record(_) => shape.field(name).is_some_and(|shape| {
                self.matches(value.get(name).unwrap_or(&Value::Null), shape, deeper)
            }),
            _ => false,
        }
    }

    /// Consul's result for a map that does not have the key.
    fn matches_without_key(&self) -> bool {
        match self.predicate {
            Predicate::Equals(_) | Predicate::Contains(_) => self.negated,
            Predicate::IsEmpty => !self.negated,
            Predicate::Matches(_) => true,
        }
    }

    /// A field that is left out of responses has the zero value of its type.
    fn leaf_matches(&self, value: &Value) -> bool {
        match &self.predicate {
            Predicate::Equals(Value::String(wanted)) => {
                value.as_str().unwrap_or_default() == wanted
            }
            Predicate::Equals(Value::Bool(wanted)) => {
                value.as_bool().unwrap_or_default() == *wanted
            }
            Predicate::Equals(wanted) => {
                value.as_i64().unwrap_or_default() == wanted.as_i64().unwrap_or_default()
            }
            Predicate::Contains(wanted) => match value {
                Value::String(text) => text.contains(wanted),
                Value::Array(items) => items.iter().any(|item| item.as_str() == Some(wanted)),
                Value::Object(fields) => fields.contains_key(wanted),
                _ => false,
            },
            Predicate::IsEmpty => match value {
                Value::Array(items) => items.is_empty(),
                Value::Object(fields) => fields.is_empty(),
                _ => true,
            },
            Predicate::Matches(pattern) => pattern.is_match(value.as_str().unwrap_or_default()),
        }
    }
}

/// Parses an integer as Go does if its base depends on its prefix: `0x`, `0b`, `0o` or `0`, or none
/// for decimal. Underscores may separate digits.
fn parse_integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let sign = &text[..text.len() - digits.len()];
    let lower = digits.to_ascii_lowercase();
    let prefixes = [("0x", 16), ("0b", 2), ("0o", 8), ("0", 8)];
    let prefixed = prefixes.iter().find_map(|(prefix, radix)| {
        let rest = lower.strip_prefix(prefix).filter(|rest| !rest.is_empty())?;
        Some((rest, *radix))
    });
    let (digits, radix) = prefixed.unwrap_or((&lower, 10));
    let digits = digits.replace('_', "");
    let is_number = digits.starts_with(|c: char| c.is_ascii_hexdigit());
    i64::from_str_radix(&format!("{sign}{digits}"), radix)
        .ok()
        .filter(|_| is_number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_may_have_a_prefix_for_their_base() {
        for (text, expected) in [
            ("80", Some(80)),
            ("-0x5_0", Some(-80)),
            ("0b11", Some(3)),
            ("0120", Some(80)),
            ("+0", Some(0)),
            ("0x", None),
            ("0x-5", None),
            ("99999999999999999999", None),
            ("", None),
        ] {
            assert_eq!(parse_integer(text), expected, "{text}");
        }
    }
}
