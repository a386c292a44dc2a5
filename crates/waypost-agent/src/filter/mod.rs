//! Filter expressions: `?filter=Service.Port == 80 and "v1" in Service.Tags`.
//!
//! The language is that of Consul's [filtering](https://developer.hashicorp.com/consul/api-docs/features/filtering);
//! [`grammar`] has its rules. What a selector may name, and which operators apply to it, is checked
//! when an expression is read, against the [shape](schema) of the records of an endpoint.

mod grammar;
mod schema;

use regex::Regex;
use serde_json::Value as Json;

use grammar::Operator;
pub(crate) use schema::{CATALOG_SERVICE, CHECK, HEALTH, NODE, NODE_WITH_ALL, SERVICE, Shape};

use crate::go_compat;

/// A condition on records of one shape.
#[derive(Debug)]
pub(crate) struct Filter {
    condition: Condition,
}

impl Filter {
    /// Reads an expression about records of `shape`. The error begins as Consul's does, and says
    /// what is wrong in words of its own.
    pub(crate) fn parse(text: &str, shape: &'static Shape) -> Result<Self, String> {
        match grammar::parse(text, shape) {
            Ok(condition) => Ok(Self { condition }),
            Err(error) => Err(format!(
                "Failed to create boolean expression evaluator: {error}"
            )),
        }
    }

    /// Whether a record, in the shape in which answers show it, meets the condition.
    pub(crate) fn matches(&self, record: &Json) -> bool {
        self.condition.matches(record)
    }
}

#[derive(Debug)]
enum Condition {
    Not(Box<Condition>),
    And(Vec<Condition>),
    Or(Vec<Condition>),
    Test(Test),
}

/// A selector, and what its value must be.
#[derive(Debug)]
struct Test {
    selector: Vec<String>,
    shape: &'static Shape,
    predicate: Predicate,
    /// For `!=`, `not in`, `not contains`, `is not empty` and `not matches`.
    negated: bool,
}

#[derive(Debug)]
enum Predicate {
    Equals(Json),
    Contains(String),
    IsEmpty,
    Matches(Regex),
}

/// What is wrong with a test that is well formed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Invalid(String);

impl Condition {
    fn matches(&self, record: &Json) -> bool {
        match self {
            Self::Not(inner) => !inner.matches(record),
            Self::And(all) => all.iter().all(|condition| condition.matches(record)),
            Self::Or(any) => any.iter().any(|condition| condition.matches(record)),
            Self::Test(test) => test.matches(record, test.shape, &test.selector),
        }
    }
}

impl Test {
    fn new(
        shape: &'static Shape,
        selector: Vec<String>,
        operator: Operator,
        value: String,
        negated: bool,
    ) -> Result<Self, Invalid> {
        let mut leaf = shape;
        for (i, name) in selector.iter().enumerate() {
            let below = leaf.below(name);
            leaf = below
                .ok_or_else(|| Invalid(format!("no field `{}` here", selector[..=i].join("."))))?;
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
                    Shape::Number => parse_integer(&value).map(Json::from),
                    Shape::Bool => go_compat::parse_bool(&value).map(Json::from),
                    _ => Some(Json::from(value.as_str())),
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
            Operator::Matches => Predicate::Matches(Regex::new(&value).map_err(|error| {
                let error = error.to_string();
                let what = error.lines().last().unwrap_or_default();
                Invalid(format!("invalid regular expression {value:?}: {what}"))
            })?),
        };
        Ok(Self {
            selector,
            shape,
            predicate,
            negated,
        })
    }

    /// Follows the selector down the record. Of a list, one item that matches is enough.
    fn matches(&self, value: &Json, shape: &Shape, path: &[String]) -> bool {
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
                self.matches(value.get(name).unwrap_or(&Json::Null), shape, deeper)
            }),
            _ => false,
        }
    }

    /// The result of Consul for a map that doesn't have the key.
    fn matches_without_key(&self) -> bool {
        match self.predicate {
            Predicate::Equals(_) | Predicate::Contains(_) => self.negated,
            Predicate::IsEmpty => !self.negated,
            Predicate::Matches(_) => true,
        }
    }

    /// A field that answers leave out has the zero value of its type.
    fn leaf_matches(&self, value: &Json) -> bool {
        match &self.predicate {
            Predicate::Equals(Json::String(wanted)) => value.as_str().unwrap_or_default() == wanted,
            Predicate::Equals(Json::Bool(wanted)) => value.as_bool().unwrap_or_default() == *wanted,
            Predicate::Equals(wanted) => {
                value.as_i64().unwrap_or_default() == wanted.as_i64().unwrap_or_default()
            }
            Predicate::Contains(wanted) => match value {
                Json::String(text) => text.contains(wanted),
                Json::Array(items) => items.iter().any(|item| item.as_str() == Some(wanted)),
                Json::Object(fields) => fields.contains_key(wanted),
                _ => false,
            },
            Predicate::IsEmpty => match value {
                Json::Array(items) => items.is_empty(),
                Json::Object(fields) => fields.is_empty(),
                _ => true,
            },
            Predicate::Matches(pattern) => pattern.is_match(value.as_str().unwrap_or_default()),
        }
    }
}

/// Parses an integer as Go does that recognises its base by its prefix: decimal, or `0x`, `0b`, `0o`
/// or `0` before digits that may be grouped by underscores.
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
    use serde_json::json;

    use super::*;

    #[test]
    fn a_filter_matches_the_records_that_meet_its_condition() {
        let record = json!({"Service": {"ID": "a", "Port": 80, "Tags": ["v1"],
            "Meta": {"k": "v"}}, "Checks": [{"Status": "passing"}, {"Status": "warning"}]});
        for (text, expected) in [
            ("Service.Port == 80", true),
            ("Service.Port != 80", false),
            ("v1 in Service.Tags and not Service.Tags contains v2", true),
            ("Service.Meta[\"k\"] == v", true),
            ("Service.Meta.nope == v", false),
            ("Service.Meta.nope != v", true),
            ("Service.Meta is empty or Checks.Status == warning", true),
            ("Checks.Status == critical", false),
            ("(Service.ID matches `^[ab]$`) and Service.Kind == ``", true),
        ] {
            let filter = Filter::parse(text, &HEALTH).unwrap();
            assert_eq!(filter.matches(&record), expected, "{text}");
        }
    }

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

    #[test]
    fn deep_nesting_is_refused() {
        let text = "(".repeat(100_000);
        assert!(Filter::parse(&text, &HEALTH).is_err());
        let text = "not ".repeat(100_000);
        assert!(Filter::parse(&text, &HEALTH).is_err());
        let text = format!("{}Service.ID == a{}", "(".repeat(50), ")".repeat(50));
        assert!(Filter::parse(&text, &HEALTH).is_ok());
    }
}
