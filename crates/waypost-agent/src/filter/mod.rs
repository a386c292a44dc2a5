//! Filter expressions: `?filter=Service.Port == 80 and "v1" in Service.Tags`.
//!
//! The language is that of Consul's [filtering](https://developer.hashicorp.com/consul/api-docs/features/filtering);
//! its rules are in [`grammar`]. The fields that a selector may name, and the operators that apply to
//! them, depend on the records of an endpoint, which are described in [`schema`].

mod condition;
mod grammar;
mod limit;
mod pattern;
mod schema;

use std::sync::Arc;

use serde_json::Value;

use condition::Condition;
pub(crate) use limit::EvaluationLimit;
pub(crate) use pattern::PatternCompiler;
pub(crate) use schema::{CATALOG_SERVICE, CHECK, HEALTH, NODE, NODE_WITH_ALL, SERVICE, Shape};

/// A condition on records of one shape.
#[derive(Debug)]
pub(crate) struct Filter {
    condition: Condition,
    limit: Option<Arc<EvaluationLimit>>,
}

impl Filter {
    /// Parses an expression for records of the given shape. The error begins as Consul's does; the
    /// rest of its text says what is wrong, and where.
    pub(crate) fn parse(text: &str, shape: &'static Shape) -> Result<Self, String> {
        match grammar::parse(text, shape) {
            Ok(condition) => Ok(Self {
                condition,
                limit: None,
            }),
            Err(error) => Err(format!(
                "Failed to create boolean expression evaluator: {error}"
            )),
        }
    }

    /// Sets when the evaluation ends. From then on the filter matches nothing.
    pub(crate) fn with_limit(self, limit: Option<Arc<EvaluationLimit>>) -> Self {
        Self { limit, ..self }
    }

    /// Whether the evaluation has ended, so that records need not be serialized any more.
    pub(crate) fn has_ended(&self) -> bool {
        self.limit.as_ref().is_some_and(|limit| limit.must_end())
    }

    /// Whether a record, as it is in the response, meets the condition.
    pub(crate) fn matches(&self, record: &Value) -> bool {
        self.condition.matches(record)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
    fn a_quoted_string_has_the_escape_sequences_of_go() {
        let record = json!({"Service": {"ID": "\u{7}\u{8}\u{c}\n\r\t\u{b}\\éA"}});
        let text = r#"Service.ID == "\a\b\f\n\r\t\v\\\u00e9\x41""#;
        assert!(Filter::parse(text, &HEALTH).unwrap().matches(&record));
    }

    #[test]
    fn a_filter_with_costly_regular_expressions_is_refused() {
        for pattern in [r"\pL{100}", r"\w{95}"] {
            let tests = vec![format!("Service.ID matches `{pattern}`"); 60];
            let error = Filter::parse(&tests.join(" or "), &HEALTH).unwrap_err();
            assert!(error.contains("too large"), "{error}");
        }
        let tests = vec!["Service.ID matches `a`"; 60];
        let error = Filter::parse(&tests.join(" or "), &HEALTH).unwrap_err();
        assert!(error.contains("more than 16"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn an_evaluation_ends_at_its_time_limit_or_when_it_is_cancelled() {
        let filter = || Filter::parse("Service.ID == a", &HEALTH).unwrap();
        let limit = Arc::new(EvaluationLimit::new(Duration::from_secs(1)));
        let limited = filter().with_limit(Some(Arc::clone(&limit)));
        assert!(!limited.has_ended());
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(limited.has_ended() && limit.is_exceeded());

        let limit = Arc::new(EvaluationLimit::new(Duration::from_secs(1)));
        let limited = filter().with_limit(Some(Arc::clone(&limit)));
        limit.cancel();
        assert!(limited.has_ended());
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
