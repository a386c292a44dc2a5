//! Filter expressions: `?filter=Service.Port == 80 and "v1" in Service.Tags`.
//!
//! The language is that of Consul's [filtering](https://developer.hashicorp.com/consul/api-docs/features/filtering):
//! matches of a selector and a value, joined by `and`, `or`, `not` and parentheses. What is wrong
//! with an expression is said in the words of Consul's parser, since clients show them to people:
//! hence a [grammar](grammar) that is tried in the same order as there.

mod grammar;
mod parser;
mod schema;

use regex::Regex;
use serde_json::Value as Json;

use grammar::{Match, Operator, Tree};
pub(crate) use schema::{CATALOG_SERVICE, CHECK, HEALTH, NODE, NODE_WITH_ALL, SERVICE, Shape};

const FAULT: &str = "Failed to create boolean expression evaluator: ";

/// A condition on records of one shape.
#[derive(Debug)]
pub(crate) struct Filter {
    condition: Condition,
}

#[derive(Debug)]
enum Condition {
    Not(Box<Condition>),
    And(Vec<Condition>),
    Or(Vec<Condition>),
    Test(Test),
}

/// One selector, and what its value must be.
#[derive(Debug)]
struct Test {
    selector: Vec<String>,
    shape: &'static Shape,
    what: What,
    /// Whether the answer is turned round: `!=`, `not in`, `is not empty`, `not matches`.
    negated: bool,
}

#[derive(Debug)]
enum What {
    Equals(Json),
    Contains(String),
    IsEmpty,
    Matches(Regex),
}

impl Filter {
    /// Reads an expression about records of `shape`. The error is what Consul says.
    pub(crate) fn parse(text: &str, shape: &'static Shape) -> Result<Self, String> {
        let condition = grammar::parse(text).and_then(|tree| understand(tree, shape));
        match condition {
            Ok(condition) => Ok(Self { condition }),
            Err(fault) => Err(format!("{FAULT}{fault}")),
        }
    }

    /// Whether a record, in the shape in which answers show it, meets the condition.
    pub(crate) fn takes(&self, record: &Json) -> bool {
        self.condition.holds(record)
    }
}

impl Condition {
    fn holds(&self, record: &Json) -> bool {
        match self {
            Self::Not(inner) => !inner.holds(record),
            Self::And(all) => all.iter().all(|condition| condition.holds(record)),
            Self::Or(any) => any.iter().any(|condition| condition.holds(record)),
            Self::Test(test) => test.holds(record, test.shape, &test.selector),
        }
    }
}

impl Test {
    /// Follows the selector down the record. Of a list, one item that holds is enough.
    fn holds(&self, value: &Json, shape: &Shape, path: &[String]) -> bool {
        let Some((name, deeper)) = path.split_first() else {
            return self.leaf_holds(value) != self.negated;
        };
        match shape {
            Shape::List(item) => {
                let mut items = value.as_array().into_iter().flatten();
                items.any(|value| self.holds(value, item, path))
            }
            Shape::Map(of) => match value.get(name) {
                Some(value) => self.holds(value, of, deeper),
                None => self.holds_without_key(),
            },
            Shape::Record(_) => shape.field(name).is_some_and(|shape| {
                self.holds(value.get(name).unwrap_or(&Json::Null), shape, deeper)
            }),
            _ => false,
        }
    }

    /// What Consul takes a missing key for: not what was asked for, and nothing to tell of.
    fn holds_without_key(&self) -> bool {
        match self.what {
            What::Equals(_) | What::Contains(_) => self.negated,
            What::IsEmpty => !self.negated,
            What::Matches(_) => true,
        }
    }

    /// A field that isn't shown has its type's zero value.
    fn leaf_holds(&self, value: &Json) -> bool {
        match &self.what {
            What::Equals(Json::String(wanted)) => value.as_str().unwrap_or_default() == wanted,
            What::Equals(Json::Bool(wanted)) => value.as_bool().unwrap_or_default() == *wanted,
            What::Equals(wanted) => {
                value.as_i64().unwrap_or_default() == wanted.as_i64().unwrap_or_default()
            }
            What::Contains(wanted) => match value {
                Json::String(text) => text.contains(wanted),
                Json::Array(items) => items.iter().any(|item| item.as_str() == Some(wanted)),
                Json::Object(fields) => fields.contains_key(wanted),
                _ => false,
            },
            What::IsEmpty => match value {
                Json::Array(items) => items.is_empty(),
                Json::Object(fields) => fields.is_empty(),
                _ => true,
            },
            What::Matches(pattern) => pattern.is_match(value.as_str().unwrap_or_default()),
        }
    }
}

/// Checks an expression against the shape of the records that it is about.
fn understand(tree: Tree, shape: &'static Shape) -> Result<Condition, String> {
    let each = |trees: Vec<Tree>| {
        let conditions = trees.into_iter().map(|tree| understand(tree, shape));
        conditions.collect::<Result<Vec<_>, _>>()
    };
    Ok(match tree {
        Tree::Not(inner) => Condition::Not(Box::new(understand(*inner, shape)?)),
        Tree::And(trees) => Condition::And(each(trees)?),
        Tree::Or(trees) => Condition::Or(each(trees)?),
        Tree::Match(it) => Condition::Test(test(it, shape)?),
    })
}

fn test(it: Match, shape: &'static Shape) -> Result<Test, String> {
    let Match {
        selector,
        operator,
        value,
    } = it;
    let mut leaf = shape;
    for (i, name) in selector.iter().enumerate() {
        let below = leaf.below(name);
        leaf = below.ok_or_else(|| {
            let known = selector[..=i].join(".");
            format!("Selector {known:?} is not valid")
        })?;
    }
    let said = selector.join(".");
    if !leaf.supports(operator) {
        let operator = operator.name();
        return Err(format!(
            "Invalid match operator {operator:?} for selector {said:?}"
        ));
    }
    let coerced = |go_function: &str, why: &str| {
        format!(
            "Failed to coerce value {value:?} for selector {said:?}: strconv.{go_function}: \
             parsing {value:?}: {why}"
        )
    };
    let (what, negated) = match operator {
        Operator::Equal | Operator::NotEqual => {
            let wanted = match leaf {
                Shape::Number => {
                    Json::from(go::parse_int(&value).map_err(|why| coerced("ParseInt", why))?)
                }
                Shape::Bool => {
                    let parsed = crate::go::parse_bool(&value);
                    Json::from(parsed.ok_or_else(|| coerced("ParseBool", "invalid syntax"))?)
                }
                _ => Json::from(value),
            };
            (What::Equals(wanted), operator == Operator::NotEqual)
        }
        Operator::In | Operator::NotIn => (What::Contains(value), operator == Operator::NotIn),
        Operator::IsEmpty | Operator::IsNotEmpty => {
            (What::IsEmpty, operator == Operator::IsNotEmpty)
        }
        Operator::Matches | Operator::NotMatches => {
            let pattern = Regex::new(&value).map_err(|error| {
                let why = go::regexp_error(&value, &error);
                format!(
                    "Failed to compile regular expression {value:?}: error parsing regexp: {why}"
                )
            })?;
            (What::Matches(pattern), operator == Operator::NotMatches)
        }
    };
    Ok(Test {
        selector,
        shape,
        what,
        negated,
    })
}

/// What Go's libraries would say.
mod go {
    /// `strconv.ParseInt(text, 0, 64)`, of what the grammar lets through.
    pub(super) fn parse_int(text: &str) -> Result<i64, &'static str> {
        text.parse().map_err(|error: std::num::ParseIntError| {
            use std::num::IntErrorKind::{NegOverflow, PosOverflow};
            match error.kind() {
                PosOverflow | NegOverflow => "value out of range",
                _ => "invalid syntax",
            }
        })
    }

    /// The commonest faults of a regular expression in Go's words; the others in Rust's.
    pub(super) fn regexp_error(pattern: &str, error: &regex::Error) -> String {
        let text = error.to_string();
        let says = |words: &str| text.contains(words);
        if says("unclosed group") {
            format!("missing closing ): `{pattern}`")
        } else if says("unopened group") {
            format!("unexpected ): `{pattern}`")
        } else if says("unclosed character class") {
            format!("missing closing ]: `{pattern}`")
        } else if says("repetition operator missing expression") {
            let operator = pattern.chars().next().unwrap_or_default();
            format!("missing argument to repetition operator: `{operator}`")
        } else {
            let last = text.lines().last().unwrap_or_default();
            last.trim_start_matches("error: ").to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_condition_takes_the_records_that_meet_it() {
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
            assert_eq!(filter.takes(&record), expected, "{text}");
        }
    }

    #[test]
    fn deep_nesting_is_refused_before_it_hurts() {
        let text = "(".repeat(100_000);
        assert!(Filter::parse(&text, &HEALTH).is_err());
        let text = "not ".repeat(100_000);
        assert!(Filter::parse(&text, &HEALTH).is_err());
        let text = format!("{}Service.ID == a{}", "(".repeat(50), ")".repeat(50));
        assert!(Filter::parse(&text, &HEALTH).is_ok());
    }
}
