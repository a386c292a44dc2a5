//! The forms of names.

use serde_json::{Value, json};

use crate::http::Cause;

/// How a name may look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// RFC 1035: as a label of RFC 1123, and a letter first.
    Label1035,
    /// A label of RFC 1123.
    Label,
    /// Labels with dots between them.
    Subdomain,
    /// Whatever can stand in a path.
    PathSegment,
}

impl Form {
    /// Why a name doesn't have this form.
    pub(crate) fn fault(self, name: &str) -> Option<&'static str> {
        let (is_right, why) = match self {
            Self::Label1035 => (
                is_label(name) && name.starts_with(|it: char| it.is_ascii_lowercase()),
                "a DNS-1035 label must consist of lower case alphanumeric characters or '-', \
                 start with an alphabetic character, and end with an alphanumeric character (e.g. \
                 'my-name',  or 'abc-123', regex used for validation is \
                 '[a-z]([-a-z0-9]*[a-z0-9])?')",
            ),
            Self::Label => (
                is_label(name),
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or \
                 '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or \
                 '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
            ),
            Self::Subdomain => (
                name.len() <= 253 && name.split('.').all(is_label),
                "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric \
                 characters, '-' or '.', and must start and end with an alphanumeric character \
                 (e.g. 'example.com', regex used for validation is \
                 '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            ),
            Self::PathSegment => (
                !name.contains(['/', '%']) && !matches!(name, "." | ".."),
                "may not contain '/' or '%'",
            ),
        };
        (!is_right).then_some(why)
    }
}

/// A label of RFC 1123.
fn is_label(name: &str) -> bool {
    let is_letter = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit();
    name.len() <= 63
        && name.starts_with(is_letter)
        && name.ends_with(is_letter)
        && name.chars().all(|it| is_letter(it) || it == '-')
}

/// The value of a label: empty, or letters, digits and `-_.` between letters and digits.
fn is_label_value(value: &str) -> bool {
    let is_edge = |it: char| it.is_ascii_alphanumeric();
    value.is_empty()
        || (value.len() <= 63
            && value.starts_with(is_edge)
            && value.ends_with(is_edge)
            && value.chars().all(|it| is_edge(it) || "-_.".contains(it)))
}

/// What is wrong with an object's metadata.
pub(crate) fn check_metadata(object: &Value, form: Form) -> Vec<Cause> {
    let mut causes = Vec::new();
    let meta = &object["metadata"];
    let name = meta["name"].as_str().unwrap_or_default();
    if name.is_empty() {
        causes.push(Cause::required(
            "metadata.name",
            "name or generateName is required",
        ));
    } else if let Some(why) = form.fault(name) {
        causes.push(Cause::invalid("metadata.name", &json!(name), why));
    }
    for (_, value) in meta["labels"].as_object().into_iter().flatten() {
        if !value.as_str().is_some_and(is_label_value) {
            causes.push(Cause::invalid(
                "metadata.labels",
                value,
                "a valid label must be an empty string or consist of alphanumeric characters, \
                 '-', '_' or '.', and must start and end with an alphanumeric character (e.g. \
                 'MyValue',  or 'my_value',  or '12345', regex used for validation is \
                 '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
            ));
        }
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_form_has_its_names() {
        let takes = |form: Form, name| form.fault(name).is_none();
        assert!(takes(Form::Label1035, "web-1") && !takes(Form::Label1035, "1-web"));
        assert!(takes(Form::Label, "1-web") && !takes(Form::Label, "Web"));
        assert!(takes(Form::Subdomain, "web.1") && !takes(Form::Subdomain, "web..1"));
        assert!(takes(Form::PathSegment, "system:reader") && !takes(Form::PathSegment, "a/b"));
    }
}
