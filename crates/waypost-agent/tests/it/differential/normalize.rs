//! Normalizes responses: replaces ids, times, ports and index numbers, which may differ. An index in
//! a body is replaced by its rank in that body, and the index header by whether it has increased
//! since the same request.

use std::collections::{BTreeSet, HashMap};
use std::io::Read;
use std::net::SocketAddr;

use crate::raw_http::{Request, Response};
use crate::real_consul::Consul;

/// A response in a form that can be compared.
#[derive(Clone, Debug)]
pub(crate) struct NormalizedResponse {
    pub status: String,
    /// Sorted by name.
    pub headers: Vec<(String, String)>,
    pub body: String,
    /// Not compared.
    index: Option<u64>,
    modified: Option<u64>,
    session: Option<String>,
}

/// One of the two registries.
pub(crate) struct Side {
    pub address: SocketAddr,
    /// Ports of this registry, and the numbers that replace them.
    replaced_ports: Vec<(String, &'static str)>,
    /// The index before the first case. Older indexes aren't compared.
    start: u64,
    last_index: u64,
    last_modified: u64,
    /// The created sessions, in order.
    sessions: Vec<String>,
    /// The last index by target.
    indexes: HashMap<String, u64>,
}

impl Side {
    pub(crate) async fn consul(consul: &Consul) -> Self {
        let ports = [
            (consul.server_port.to_string(), "8300"),
            (consul.serf_lan_port.to_string(), "8301"),
            (consul.serf_wan_port.to_string(), "8302"),
        ];
        Self::new(consul.http, ports.into()).await
    }

    pub(crate) async fn agent(address: SocketAddr) -> Self {
        Self::new(address, Vec::new()).await
    }

    async fn new(address: SocketAddr, replaced_ports: Vec<(String, &'static str)>) -> Self {
        let mut start = 0;
        for target in ["/v1/catalog/nodes", "/v1/health/service/consul"] {
            let response = Request::new("GET", target, "").send(address).await.unwrap();
            let index = response.header("x-consul-index").unwrap();
            start = start.max(index.parse().unwrap());
        }
        Self {
            address,
            replaced_ports,
            start,
            last_index: start,
            last_modified: 0,
            sessions: Vec::new(),
            indexes: HashMap::new(),
        }
    }

    pub(crate) async fn ask(&self, request: &Request) -> NormalizedResponse {
        match self.fill(request).send(self.address).await {
            Ok(response) => self.normalize(request, response),
            Err(error) => NormalizedResponse {
                status: format!("no response: {error}"),
                headers: Vec::new(),
                body: String::new(),
                index: None,
                modified: None,
                session: None,
            },
        }
    }

    /// The request with the placeholders replaced for this registry.
    pub(crate) fn fill(&self, request: &Request) -> Request {
        Request {
            target: self.fill_text(&request.target),
            body: self.fill_text(&request.body),
            ..request.clone()
        }
    }

    pub(crate) fn fill_text(&self, text: &str) -> String {
        let session = |back| match self.sessions.len().checked_sub(back) {
            Some(at) => self.sessions[at].as_str(),
            None => "",
        };
        text.replace("{index}", &self.last_index.to_string())
            .replace("{modified}", &self.last_modified.to_string())
            .replace("{session}", session(1))
            .replace("{earlier session}", session(2))
            .replace("{http}", &self.address.port().to_string())
    }

    /// Stores the values of a response that placeholders refer to.
    pub(crate) fn remember(&mut self, request: &Request, response: &NormalizedResponse) {
        self.last_modified = response.modified.unwrap_or(self.last_modified);
        self.sessions.extend(response.session.clone());
        if let Some(index) = response.index {
            self.last_index = index;
            self.indexes.insert(request.target.clone(), index);
        }
    }

    fn normalize(&self, request: &Request, response: Response) -> NormalizedResponse {
        let index = response
            .header("x-consul-index")
            .map(|index| index.parse().unwrap());
        let mut body = text_of(&response);
        let modified = numbers_after(&body, &["\"ModifyIndex\":"]);
        let modified = modified.last().and_then(|at| body[at.clone()].parse().ok());
        let session = if request.target.starts_with("/v1/session/create") {
            body.strip_prefix("{\"ID\":\"").and_then(|id| id.get(..36))
        } else {
            None
        };
        let session = session.map(str::to_owned);
        body = replace_number(&body, &self.address.port().to_string(), "8500");
        for (own, common) in &self.replaced_ports {
            body = replace_number(&body, own, common);
        }
        body = replace_uuids(&body);
        body = self.rank_indexes(&body);
        body = sort_lists(&request.target, &body);
        body = cut_free_ending(&body);
        let mut headers: Vec<_> = response
            .headers
            .into_iter()
            .filter(|(name, _)| !is_connection_header(name))
            .map(|(name, value)| match name.as_str() {
                "X-Consul-Index" => (name, self.index_change(&request.target, index)),
                "Age" => (name, "<age>".to_owned()),
                _ => (name, value),
            })
            .collect();
        headers.sort();
        NormalizedResponse {
            status: response.status,
            headers,
            body,
            index,
            modified,
            session,
        }
    }

    /// How the index relates to the previous one of the same request.
    fn index_change(&self, target: &str, index: Option<u64>) -> String {
        let before = self.indexes.get(target);
        match (before, index) {
            _ if target.starts_with("/v1/event/") => "<index>".to_owned(),
            (None, _) => "<index>".to_owned(),
            (Some(before), Some(index)) if index > *before => "<higher index>".to_owned(),
            (Some(before), Some(index)) if index < *before => "<lower index>".to_owned(),
            _ => "<same index>".to_owned(),
        }
    }

    /// Replaces `CreateIndex` and `ModifyIndex` by their ranks, or by 0 if they are older than the
    /// first case.
    fn rank_indexes(&self, body: &str) -> String {
        let found = numbers_after(
            body,
            &[
                "\"CreateIndex\":",
                "\"ModifyIndex\":",
                "current modify index ",
            ],
        );
        let value = |range: &std::ops::Range<usize>| body[range.clone()].parse().unwrap_or(0);
        let ranks: BTreeSet<u64> = found
            .iter()
            .map(value)
            .filter(|i| *i > self.start)
            .collect();
        let mut ranked = String::with_capacity(body.len());
        let mut end = 0;
        for range in found {
            let rank = ranks.iter().position(|index| *index == value(&range));
            ranked.push_str(&body[end..range.start]);
            ranked.push_str(&format!("#{}", rank.map_or(0, |rank| rank + 1)));
            end = range.end;
        }
        ranked.push_str(&body[end..]);
        ranked
    }
}

impl NormalizedResponse {
    /// Excludes the index header from the comparison.
    pub(crate) fn remove_index(&mut self) {
        self.headers.retain(|(name, _)| name != "X-Consul-Index");
    }

    /// The error in the index of this response, given an earlier one to the same request.
    pub(crate) fn index_error_after(&self, before: &Self) -> Option<String> {
        let (now, then) = (self.index?, before.index?);
        if now < then {
            Some(format!("the index went back from {then} to {now}"))
        } else if now == then && self.body != before.body {
            let (then, now) = (&before.body, &self.body);
            Some(format!(
                "the index is the same, but the response changed from {then} to {now}"
            ))
        } else {
            None
        }
    }
}

impl PartialEq for NormalizedResponse {
    fn eq(&self, other: &Self) -> bool {
        self.status == other.status && self.headers == other.headers && self.body == other.body
    }
}

/// Errors of which only the beginning is compared, and the reason.
pub(crate) const FREE_ENDINGS: &[(&str, &str)] = &[
    (
        "Request decode failed: ",
        "the rest is the text of Go's JSON decoder",
    ),
    ("Failed to parse body: ", "the same for transactions"),
    (
        "Bad request: Failed to decode request body: ",
        "the same for authorizations",
    ),
    (
        "Failed to create boolean expression evaluator: ",
        "the rest is the text of Consul's parser generator",
    ),
];

pub(crate) fn cut_free_ending(body: &str) -> String {
    let mut beginnings = FREE_ENDINGS.iter().map(|(beginning, _)| *beginning);
    let beginning = beginnings.find(|beginning| body.starts_with(beginning));
    beginning.unwrap_or(body).to_owned()
}

fn text_of(response: &Response) -> String {
    if response.header("content-encoding") == Some("gzip") {
        let mut text = String::new();
        let mut decoder = flate2::read::GzDecoder::new(response.body.as_slice());
        decoder.read_to_string(&mut text).unwrap();
        return text;
    }
    response.text()
}

/// Whether a header concerns framing or the time, which aren't compared.
fn is_connection_header(name: &str) -> bool {
    ["Date", "Content-Length", "Transfer-Encoding", "Connection"].contains(&name)
}

/// Replaces a number, except where it is part of a longer one.
fn replace_number(text: &str, number: &str, by: &str) -> String {
    let mut replaced = String::with_capacity(text.len());
    let mut end = 0;
    for (at, _) in text.match_indices(number) {
        let (before, after) = (&text[..at], &text[at + number.len()..]);
        let is_part = before.ends_with(|c: char| c.is_ascii_hexdigit() || c == '.')
            || after.starts_with(|c: char| c.is_ascii_hexdigit());
        if !is_part {
            replaced.push_str(&text[end..at]);
            replaced.push_str(by);
            end = at + number.len();
        }
    }
    replaced.push_str(&text[end..]);
    replaced
}

/// Replaces each UUID by the position of its first occurrence.
fn replace_uuids(body: &str) -> String {
    const LENGTH: usize = 36;
    let is_uuid = |text: &str| {
        text.char_indices().all(|(i, c)| match i {
            8 | 13 | 18 | 23 => c == '-',
            _ => c.is_ascii_hexdigit(),
        })
    };
    let mut seen: Vec<String> = Vec::new();
    let mut replaced = String::with_capacity(body.len());
    let mut rest = body;
    while let Some(first) = rest.chars().next() {
        match rest.get(..LENGTH) {
            Some(text) if is_uuid(text) => {
                let position = seen.iter().position(|known| known == text);
                let position = position.unwrap_or_else(|| {
                    seen.push(text.to_owned());
                    seen.len() - 1
                });
                replaced.push_str(&format!("<uuid {position}>"));
                rest = &rest[LENGTH..];
            }
            _ => {
                replaced.push(first);
                rest = &rest[first.len_utf8()..];
            }
        }
    }
    replaced
}

/// The ranges of the numbers that follow one of the names.
fn numbers_after(body: &str, names: &[&str]) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    for name in names {
        for (at, _) in body.match_indices(name) {
            let rest = &body[at + name.len()..];
            let digits = rest.trim_start();
            let start = at + name.len() + (rest.len() - digits.len());
            let length = digits
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(digits.len());
            found.push(start..start + length);
        }
    }
    found.sort_by_key(|range| range.start);
    found
}

/// Sorts lists that Consul returns in random order, because they come from a Go map.
fn sort_lists(target: &str, body: &str) -> String {
    let path = target.split('?').next().unwrap_or_default();
    let unordered = path == "/v1/catalog/services" || path.starts_with("/v1/agent/health/service/");
    let pretty = target.contains("pretty");
    match serde_json::from_str::<serde_json::Value>(&body.replace(":#", ":1000")) {
        Ok(mut json) if unordered && !pretty => {
            sort(&mut json);
            json.to_string()
        }
        _ => body.to_owned(),
    }
}

fn sort(json: &mut serde_json::Value) {
    match json {
        serde_json::Value::Array(items) => {
            items.iter_mut().for_each(sort);
            items.sort_by_key(ToString::to_string);
        }
        serde_json::Value::Object(fields) => fields.values_mut().for_each(sort),
        _ => {}
    }
}
