//! The language of the cases. A line is a request: a method, a target and perhaps a body. What
//! belongs to it follows on indented lines: a header, or why the answers may differ.
//!
//! ```text
//! # a comment
//! == The title of a story: everything registered before is removed
//! PUT /v1/agent/service/register {"Name":"web"}
//! GET /v1/catalog/service/web?index={index}&wait=10ms
//!   Accept-Encoding: gzip
//!   differs: the reason
//! until GET /v1/agent/checks "passing"
//! ```
//!
//! `{index}` stands for the `X-Consul-Index` of the last answer of the same side that had one,
//! `{http}` for the port of its API, `{session}` and `{earlier session}` for the last two sessions it
//! has created, `{modified}` for the last `ModifyIndex` it has shown.
//! `until` asks both sides until the answer contains the text, and compares nothing.

use crate::raw_http::Request;

pub(crate) enum Step {
    Scenario,
    Compare(Case),
    Until(Request, String),
}

pub(crate) struct Case {
    /// Where it is written.
    pub place: String,
    pub request: Request,
    /// Why the answers may differ, if they do.
    pub differs: Option<String>,
}

pub(crate) fn parse(name: &str, text: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    for (i, line) in text.lines().enumerate() {
        let place = format!("{name}.txt:{}", i + 1);
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        if line.starts_with("==") {
            steps.push(Step::Scenario);
        } else if let Some(addition) = line.strip_prefix("  ") {
            match steps.last_mut() {
                Some(Step::Compare(case)) => add(case, addition),
                _ => panic!("{place}: nothing before it that this could belong to"),
            }
        } else if let Some(rest) = line.strip_prefix("until ") {
            let quoted = rest.split_once(" \"");
            let (request, wanted) = quoted.expect("until REQUEST \"TEXT\"");
            let wanted = wanted.strip_suffix('"').expect("a closing quote");
            steps.push(Step::Until(request_of(request), wanted.to_owned()));
        } else {
            steps.push(Step::Compare(Case {
                place,
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
        None => panic!("{}: neither a header nor a reason: {addition}", case.place),
    }
}

/// Percent-encodes an id for a path.
pub(crate) fn escape(id: &str) -> String {
    percent_encoding::utf8_percent_encode(id, percent_encoding::NON_ALPHANUMERIC).to_string()
}
