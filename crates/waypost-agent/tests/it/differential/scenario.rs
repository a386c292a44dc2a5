//! The format of the cases. A line is a request: a method, a target and an optional body. Indented
//! lines after it add a header, or the reason why the responses differ.
//!
//! ```text
//! # a comment
//! == The title of a scenario: everything registered before is removed
//! PUT /v1/agent/service/register {"Name":"web"}
//! GET /v1/catalog/service/web?index={index}&wait=10ms
//!   Accept-Encoding: gzip
//!   differs: the reason
//! until GET /v1/agent/checks "passing"
//! ```
//!
//! Placeholders are replaced separately for each registry: `{index}` by its last `X-Consul-Index`,
//! `{http}` by the port of its API, `{session}` and `{earlier session}` by the last two sessions that
//! it created, and `{modified}` by the last `ModifyIndex` in a response. `until` repeats a request
//! until the response contains the text, and compares nothing.

use crate::raw_http::Request;

pub(crate) enum Step {
    Scenario,
    Compare(Case),
    Until(Request, String),
}

pub(crate) struct Case {
    /// The file and line.
    pub location: String,
    pub request: Request,
    /// Why the responses differ.
    pub differs: Option<String>,
}

pub(crate) fn parse(name: &str, text: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let location = format!("{name}.txt:{}", i + 1);
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with("==") {
            steps.push(Step::Scenario);
        } else if let Some(addition) = line.strip_prefix("  ") {
            match steps.last_mut() {
                Some(Step::Compare(case)) => add(case, addition),
                _ => panic!("{location}: an indented line must follow a request"),
            }
        } else if let Some(rest) = line.strip_prefix("until ") {
            let quoted = rest.split_once(" \"");
            let (request, expected) = quoted.expect("until REQUEST \"TEXT\"");
            let expected = expected.strip_suffix('"').expect("a closing quote");
            steps.push(Step::Until(request_of(request), expected.to_owned()));
        } else {
            steps.push(Step::Compare(Case {
                location,
                request: request_of(line),
                differs: None,
            }));
        }
    }
    steps
}

fn request_of(line: &str) -> Request {
    let mut words = line.splitn(3, ' ');
    let mut next = || words.next().unwrap_or_default();
    Request::new(next(), next(), next())
}

fn add(case: &mut Case, addition: &str) {
    match addition.split_once(": ") {
        Some(("differs", reason)) => case.differs = Some(reason.to_owned()),
        Some((name, value)) => {
            let header = (name.to_owned(), value.to_owned());
            case.request.headers.push(header);
        }
        None => panic!(
            "{}: neither a header nor `differs`: {addition}",
            case.location
        ),
    }
}

/// Percent-encodes an id for a path.
pub(crate) fn escape(id: &str) -> String {
    percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC).to_string()
}
