//! Label and field selectors.

use super::object::Object;

/// Which objects are meant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<(Field, bool, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    test: Test,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Test {
    Exists,
    Absent,
    In(Vec<String>),
    NotIn(Vec<String>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Name,
    Namespace,
}

impl Selector {
    /// Reads both kinds; an error is the text to answer with.
    pub(crate) fn parse(labels: &str, fields: &str) -> Result<Self, String> {
        Ok(Self {
            labels: parse_labels(labels)
                .ok_or_else(|| format!("unable to parse requirement: {labels:?}"))?,
            fields: parse_fields(fields)?,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// The one name that it allows, if there is but one.
    pub(crate) fn name(&self) -> Option<&str> {
        self.fields
            .iter()
            .find_map(|(field, is, value)| (*field == Field::Name && *is).then_some(value.as_str()))
    }

    pub(crate) fn matches(&self, object: &Object) -> bool {
        self.labels.iter().all(|it| it.matches(object))
            && self.fields.iter().all(|(field, is, value)| {
                let found = match field {
                    Field::Name => &object.key.name,
                    Field::Namespace => &object.key.namespace,
                };
                (found == value) == *is
            })
    }
}

impl Requirement {
    fn matches(&self, object: &Object) -> bool {
        let found = object.labels.get(&self.key);
        match &self.test {
            Test::Exists => found.is_some(),
            Test::Absent => found.is_none(),
            Test::In(values) => found.is_some_and(|it| values.contains(it)),
            Test::NotIn(values) => found.is_none_or(|it| !values.contains(it)),
        }
    }
}

fn parse_fields(text: &str) -> Result<Vec<(Field, bool, String)>, String> {
    let terms = text.split(',').filter(|term| !term.is_empty());
    terms
        .map(|term| {
            let split = term
                .split_once("!=")
                .map(|(key, value)| (key, false, value))
                .or_else(|| term.split_once("==").map(|(key, value)| (key, true, value)))
                .or_else(|| term.split_once('=').map(|(key, value)| (key, true, value)));
            let (key, is, value) = split
                .ok_or_else(|| format!("invalid selector: '{text}'; can't understand '{term}'"))?;
            let field = match key {
                "metadata.name" => Field::Name,
                "metadata.namespace" => Field::Namespace,
                _ => return Err(format!("field label not supported: {key}")),
            };
            Ok((field, is, value.to_owned()))
        })
        .collect()
}

fn parse_labels(text: &str) -> Option<Vec<Requirement>> {
    let terms = split_outside_brackets(text);
    terms
        .filter(|term| !term.is_empty())
        .map(parse_label)
        .collect()
}

/// At the commas that stand in no bracket.
fn split_outside_brackets(text: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    text.split(move |character| {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            _ => {}
        }
        depth == 0 && character == ','
    })
    .map(str::trim)
}

fn parse_label(term: &str) -> Option<Requirement> {
    let requirement = |key: &str, test| {
        let key = key.trim();
        let is_key = !key.is_empty()
            && key
                .chars()
                .all(|it| it.is_ascii_alphanumeric() || "-_./".contains(it));
        is_key.then(|| Requirement {
            key: key.to_owned(),
            test,
        })
    };
    let one = |value: &str| vec![value.trim().to_owned()];
    if let Some(body) = term.strip_suffix(')') {
        let (head, values) = body.split_once('(')?;
        let values = values.split(',').map(|it| it.trim().to_owned()).collect();
        let (key, operator) = head.trim().rsplit_once(char::is_whitespace)?;
        return match operator {
            "in" => requirement(key, Test::In(values)),
            "notin" => requirement(key, Test::NotIn(values)),
            _ => None,
        };
    }
    if let Some((key, value)) = term.split_once("!=") {
        return requirement(key, Test::NotIn(one(value)));
    }
    if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return requirement(key, Test::In(one(value)));
    }
    match term.strip_prefix('!') {
        Some(key) => requirement(key, Test::Absent),
        None => requirement(term, Test::Exists),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn selects_as_kubernetes_does() {
        let meta = json!({ "name": "web-1", "namespace": "demo", "labels": { "app": "web" } });
        let object = Object::new(json!({ "metadata": meta }), 5);
        let matches = |labels, fields| Selector::parse(labels, fields).unwrap().matches(&object);
        for labels in [
            "",
            "app",
            "app=web",
            "app==web",
            "app in (api, web)",
            "app notin (api),!tier",
            "tier!=gold",
            "tier notin (gold)",
        ] {
            assert!(matches(labels, "metadata.name=web-1"), "{labels}");
        }
        for labels in [
            "!app",
            "app=api",
            "app in (a,b)",
            "tier",
            "tier=gold",
            "app,app!=web",
        ] {
            assert!(!matches(labels, ""), "{labels}");
        }
        assert!(matches("", "metadata.namespace==demo,metadata.name!=web-2"));
        assert!(!matches("", "metadata.name=web-2"));
    }

    #[test]
    fn says_what_it_can_not_read() {
        assert_eq!(
            Selector::parse("", "spec.nodeName=a"),
            Err("field label not supported: spec.nodeName".to_owned())
        );
        assert!(Selector::parse("app in web", "").is_err());
        assert!(Selector::parse("app in (web", "").is_err());
    }
}
