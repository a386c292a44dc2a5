//! The conditions in the status of an object.

use serde_json::{Value, json};

/// The maximum length of a message in characters, from the schema of the CustomResourceDefinitions.
const MAX_MESSAGE: usize = 32_768;

/// A placeholder for the time at which the status is written.
pub(super) const NOW: &str = "now";

/// The types of conditions that this controller writes.
const OURS: [&str; 5] = [
    "Accepted",
    "Conflicted",
    "PartiallyInvalid",
    "Programmed",
    "ResolvedRefs",
];

/// A condition without its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) kind: &'static str,
    pub(super) is_true: bool,
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Condition {
    /// A condition without a message.
    pub(super) fn is(kind: &'static str, is_true: bool, reason: &'static str) -> Self {
        Self::because(kind, is_true, reason, "")
    }

    pub(super) fn because(
        kind: &'static str,
        is_true: bool,
        reason: &'static str,
        message: impl Into<String>,
    ) -> Self {
        let message = message.into();
        Self {
            kind,
            is_true,
            reason,
            message: message.chars().take(MAX_MESSAGE).collect(),
        }
    }

    /// `problem` is a reason and a message.
    pub(super) fn unless(
        kind: &'static str,
        problem: Option<&Problem>,
        reason: &'static str,
    ) -> Self {
        match problem {
            Some(problem) => Self::because(kind, false, problem.reason, problem.message.clone()),
            None => Self::is(kind, true, reason),
        }
    }
}

/// Why a condition isn't true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) reason: &'static str,
    pub(super) message: String,
}

impl Problem {
    /// Joins problems into one, which has the reason of the first and the messages of all. `None` if there are
    /// none.
    pub(super) fn join(problems: Vec<Self>) -> Option<Self> {
        let reason = problems.first()?.reason;
        let mut messages: Vec<_> = problems.into_iter().map(|it| it.message).collect();
        messages.dedup();
        Some(Self::new(reason, messages.join("; ")))
    }

    pub(super) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            reason,
            message: message.into(),
        }
    }
}

/// The list of conditions in a status. `before` is the current list: a condition that stays true or false
/// keeps its transition time, and conditions that others have written are kept.
pub(super) fn list(conditions: &[Condition], generation: u64, before: &Value) -> Value {
    let before = before.as_array().map(Vec::as_slice).unwrap_or_default();
    let find = |kind: &str| before.iter().find(|condition| condition["type"] == kind);
    let ours = conditions.iter().map(|condition| {
        let status = if condition.is_true { "True" } else { "False" };
        let same = find(condition.kind).filter(|before| before["status"] == status);
        let time = same.and_then(|before| before["lastTransitionTime"].as_str());
        json!({
            "type": condition.kind,
            "status": status,
            "reason": condition.reason,
            "message": condition.message,
            "observedGeneration": generation,
            "lastTransitionTime": time.unwrap_or(NOW),
        })
    });
    let is_ours = |value: &&Value| OURS.iter().any(|ours| value["type"] == *ours);
    let others = before.iter().filter(|value| !is_ours(value)).cloned();
    ours.chain(others).collect()
}

/// Replaces [`NOW`] by the time, in the form of RFC 3339.
pub(super) fn set_time(status: &mut Value, now: &str) {
    match status {
        Value::Array(items) => items.iter_mut().for_each(|item| set_time(item, now)),
        Value::Object(members) => {
            for (name, value) in members {
                if name == "lastTransitionTime" && value == NOW {
                    *value = now.into();
                } else {
                    set_time(value, now);
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_condition_that_changes_gets_a_new_time() {
        let accepted = Condition::is("Accepted", true, "Accepted");
        let mut first = list(std::slice::from_ref(&accepted), 1, &Value::Null);
        set_time(&mut first, "2026-01-01T00:00:00Z");
        assert_eq!(list(&[accepted], 1, &first), first);
        let again = list(&[Condition::is("Accepted", true, "Other")], 2, &first);
        assert_eq!(again[0]["lastTransitionTime"], "2026-01-01T00:00:00Z");
        let refused = list(&[Condition::is("Accepted", false, "Invalid")], 2, &first);
        assert_eq!(refused[0]["lastTransitionTime"], NOW);
        first[0]["type"] = "SomebodyElses".into();
        let other = list(
            &[Condition::is("Programmed", true, "Programmed")],
            1,
            &first,
        );
        assert_eq!(other[1], first[0]);
    }
}
