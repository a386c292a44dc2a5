//! Selects Services by their labels.

use waypost_core::Invalid;

use crate::resources::StringMap;

/// Conditions that all have to be met, in the syntax of `kubectl get --selector`: `key=value` or
/// `key==value`, `key!=value`, `key` and `!key`, separated by commas. The forms with `in` and `notin` are
/// not supported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LabelSelector(Vec<Condition>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    Equal(Box<str>, Box<str>),
    /// Also met if there is no such label, as in Kubernetes.
    Unequal(Box<str>, Box<str>),
    Present(Box<str>),
    Absent(Box<str>),
}

impl LabelSelector {
    pub(crate) fn parse(text: &str) -> Result<Self, Invalid> {
        let conditions = text.split(',').map(str::trim);
        let conditions = conditions.filter(|condition| !condition.is_empty());
        let parsed = conditions.map(|condition| {
            Condition::parse(condition).ok_or_else(|| {
                let why = format!(
                    "{condition:?} is not a condition; use key=value, key!=value, key or !key, \
                     separated by commas"
                );
                Invalid::new("label selector", text, why)
            })
        });
        Ok(Self(parsed.collect::<Result<_, _>>()?))
    }

    pub(crate) fn matches(&self, labels: Option<&StringMap>) -> bool {
        let value = |key: &str| labels.and_then(|labels| labels.get(key));
        self.0.iter().all(|condition| match condition {
            Condition::Equal(key, wanted) => value(key) == Some(wanted),
            Condition::Unequal(key, unwanted) => value(key) != Some(unwanted),
            Condition::Present(key) => value(key).is_some(),
            Condition::Absent(key) => value(key).is_none(),
        })
    }
}

impl Condition {
    fn parse(text: &str) -> Option<Self> {
        if let Some(key) = text.strip_prefix('!') {
            return Some(Self::Absent(key_in(key)?));
        }
        if let Some((key, value)) = text.split_once("!=") {
            return Some(Self::Unequal(key_in(key)?, value_in(value)?));
        }
        match text.split_once('=') {
            Some((key, value)) => {
                let value = value.strip_prefix('=').unwrap_or(value);
                Some(Self::Equal(key_in(key)?, value_in(value)?))
            }
            None => Some(Self::Present(key_in(text)?)),
        }
    }
}

fn is_label_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.')
}

/// A key of a label, such as `app.kubernetes.io/part-of`.
fn key_in(text: &str) -> Option<Box<str>> {
    let key = text.trim();
    let is_valid = !key.is_empty() && key.chars().all(|c| is_label_char(c) || c == '/');
    is_valid.then(|| key.into())
}

/// A value of a label, which may be empty.
fn value_in(text: &str) -> Option<Box<str>> {
    let value = text.trim();
    value.chars().all(is_label_char).then(|| value.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).into(), (*value).into()));
        let labels: StringMap = labels.collect();
        LabelSelector::parse(selector)
            .unwrap()
            .matches(Some(&labels))
    }

    #[test]
    fn conditions_are_those_of_kubectl() {
        let labels = [("app.kubernetes.io/part-of", "shop"), ("tier", "web")];
        for selector in [
            "",
            "tier=web",
            "tier==web, app.kubernetes.io/part-of = shop",
            "tier!=db",
            "missing!=x",
            "tier",
            "!missing",
        ] {
            assert!(matches(selector, &labels), "{selector}");
        }
        for selector in [
            "tier=db",
            "tier!=web",
            "missing",
            "!tier",
            "tier=web,missing=x",
            "tier=",
        ] {
            assert!(!matches(selector, &labels), "{selector}");
        }
        assert!(!LabelSelector::parse("tier").unwrap().matches(None));
    }

    #[test]
    fn anything_else_is_refused_with_what_is_valid() {
        for selector in ["tier in (web, db)", "a b", "=x", "!", "a=b=c", "a=\u{1b}"] {
            let error = LabelSelector::parse(selector).unwrap_err().to_string();
            assert!(
                error.contains("use key=value, key!=value, key or !key"),
                "{error}"
            );
        }
    }
}
