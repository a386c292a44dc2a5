//! Label and field selectors.

use super::object::Object;

/// Selects objects. Conditions are equalities, and for labels also `KEY in (…)`; the only field is
/// `metadata.name`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selector {
    labels: Vec<Requirement>,
    name: Option<String>,
}

/// A label that must have one of these values.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Requirement {
    key: String,
    values: Vec<String>,
}

impl Selector {
    /// Parses the options `labelSelector` and `fieldSelector`; None if they are invalid or of a kind
    /// that is not supported.
    pub(crate) fn parse(labels: &str, fields: &str) -> Option<Self> {
        let terms = split_outside_brackets(labels).filter(|term| !term.is_empty());
        let name = match fields {
            "" => None,
            _ => Some(fields.strip_prefix("metadata.name=")?.to_owned()),
        };
        Some(Self {
            labels: terms.map(Requirement::parse).collect::<Option<_>>()?,
            name,
        })
    }

    /// The one name that is selected, if there is only one.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    pub(crate) fn matches(&self, object: &Object) -> bool {
        let has_name = self.name.as_ref().is_none_or(|it| *it == object.key.name);
        has_name && self.labels.iter().all(|it| it.matches(object))
    }
}

impl Requirement {
    fn parse(term: &str) -> Option<Self> {
        let (key, values) = match term.strip_suffix(')') {
            Some(list) => list.split_once(" in (")?,
            None => term.split_once('=')?,
        };
        let is_part_of_key = |it: char| it.is_ascii_alphanumeric() || "-_./".contains(it);
        let is_key = !key.is_empty() && key.chars().all(is_part_of_key);
        is_key.then(|| Self {
            key: key.to_owned(),
            values: values.split(',').map(|it| it.trim().to_owned()).collect(),
        })
    }

    fn matches(&self, object: &Object) -> bool {
        let value = object.labels.get(&self.key);
        value.is_some_and(|it| self.values.contains(it))
    }
}

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
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn objects_are_selected_by_labels_and_name() {
        let meta = json!({ "name": "web-1", "labels": { "app": "web", "tier": "gold" } });
        let object = Object::new(json!({ "metadata": meta }), 5);
        for (labels, fields, expected) in [
            ("", "", true),
            ("app=web", "metadata.name=web-1", true),
            ("app in (api, web),tier=gold", "", true),
            ("app=api", "", false),
            ("app in (a,b)", "", false),
            ("zone=a", "", false),
            ("app=web", "metadata.name=web-2", false),
        ] {
            let selector = Selector::parse(labels, fields).unwrap();
            assert_eq!(selector.matches(&object), expected, "{labels} {fields}");
        }
    }

    #[test]
    fn other_selectors_are_refused() {
        for labels in ["app", "!app", "app!=web", "app in web", "app notin (web)"] {
            assert_eq!(Selector::parse(labels, ""), None, "{labels}");
        }
        assert_eq!(Selector::parse("", "spec.nodeName=a"), None);
    }
}
