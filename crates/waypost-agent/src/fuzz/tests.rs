//! Calls the fuzz targets with mutated seeds for a few seconds.

use std::path::Path;

use waypost_testkit::mutation::{call, fuzz};

use super::*;

/// Strings that mutations insert.
const WORDS: &[&str] = &[
    "?index=18446744073709551615&wait=1h",
    "&index=1",
    "&recurse",
    "?keys&separator=",
    "&dc=x",
    "?filter=",
    "%00",
    "%ff",
    "%C3%A9",
    "//",
    "/../",
    "-1",
    "9223372036854775808",
    "1e999",
    "null",
    "{}",
    "[]",
    "\"\"",
    "\\ud800",
    "\u{0}",
    "é",
    "{\"",
    "\":",
    "10s",
    "0",
    "\n",
    "and",
    "or",
    "not",
    "in",
    "matches",
    "(",
    ")",
    "==",
    "is empty",
    "`",
    "[\"a\"]",
    ".",
];

#[test]
fn requests_neither_panic_nor_hang() {
    let seeds: Vec<Vec<u8>> = cases().iter().flat_map(|text| scenarios(text)).collect();
    fuzz(requests, &seeds, WORDS, 5_000);
}

#[test]
fn dns_queries_neither_panic_nor_hang() {
    let names = [
        "web.service.consul",
        "v1.web.service.dc1.consul",
        "_web._tcp.service.consul",
        "n1.node.consul",
        "0a000001.addr.consul",
        "1.0.0.127.in-addr.arpa",
        "consul",
        "",
    ];
    let kinds = [1, 28, 33, 16, 12, 6, 2, 5, 255];
    let seeds: Vec<Vec<u8>> = names
        .iter()
        .flat_map(|name| kinds.map(|kind| query(name, kind)))
        .collect();
    fuzz(dns, &seeds, WORDS, 30_000);
}

#[test]
fn filters_neither_panic_nor_hang() {
    let cases = cases().concat();
    let after = cases.split("filter=").skip(1);
    let expressions = after.map(|rest| rest.split([' ', '&', '\n']).next().unwrap_or_default());
    let seeds: Vec<Vec<u8>> = expressions
        .map(|text| {
            url::form_urlencoded::parse(format!("f={text}").as_bytes())
                .map(|(_, value)| value.into_owned().into_bytes())
                .next()
                .unwrap_or_default()
        })
        .collect();
    fuzz(filter, &seeds, WORDS, 10_000);
}

#[test]
fn numbers_neither_panic_nor_hang() {
    let seeds = [
        "1h2m3.5s",
        "10ms",
        "-0.1us",
        "9223372036854775807ns",
        "18446744073709551615",
        "true",
        "2c4a1a7e-6e5e-4d3f-8f6e-0123456789ab",
    ];
    fuzz(numbers, &seeds, WORDS, 10_000);
}

/// Long and deeply nested inputs, which mutations of short ones rarely produce.
#[test]
fn large_requests_neither_panic_nor_hang() {
    const HEAD: usize = 60_000;
    const BODY: usize = 1024 * 1024;
    for (prefix, part, size) in [
        ("GET /v1/agent/services?filter=", "(", HEAD),
        ("GET /v1/agent/services?filter=", "not%20", HEAD),
        ("GET /v1/agent/services?filter=", "ID==a%20and%20", HEAD),
        ("GET /v1/agent/services?filter=ID==", "a", HEAD),
        (
            "GET /v1/agent/services?filter=ID%20matches%20`",
            "(a*)*",
            HEAD,
        ),
        (
            "GET /v1/agent/services?filter=ID%20matches%20`",
            "a{99}{99}",
            18,
        ),
        ("GET /v1/agent/services?filter=Meta", ".a", HEAD),
        ("GET /v1/agent/services?filter=Meta", "[", HEAD),
        ("GET /v1/health/service/web?", "tag=a&", HEAD),
        ("GET /v1/health/service/web?", "node-meta=a:b&", HEAD),
        ("GET /v1/kv/", "a/", HEAD),
        ("GET /", "../", HEAD),
        ("GET /", "/", HEAD),
        ("GET /", "%20", HEAD),
        ("GET /v1/catalog/nodes?wait=", "9", HEAD),
        ("GET /v1/catalog/nodes?wait=", "1h", HEAD),
        ("PUT /v1/agent/service/register ", "[", BODY),
        ("PUT /v1/agent/service/register ", "{\"a\":", BODY),
        (
            "PUT /v1/agent/service/register {\"Name\":\"a\",\"Tags\":[",
            "\"a\",",
            BODY,
        ),
        (
            "PUT /v1/agent/service/register {\"Name\":\"a\",\"Checks\":[",
            "{},",
            BODY,
        ),
        ("PUT /v1/agent/service/register {", "\"Name\":\"a\",", BODY),
        (
            "PUT /v1/agent/service/register {\"Name\":\"",
            "\\u0041",
            BODY,
        ),
        (
            "PUT /v1/catalog/register {\"Node\":\"a\",\"Checks\":[",
            "{\"Name\":\"a\"},",
            BODY,
        ),
        (
            "PUT /v1/txn [",
            "{\"KV\":{\"Verb\":\"get\",\"Key\":\"a\"}},",
            BODY,
        ),
        (
            "PUT /v1/session/create {\"ServiceChecks\":[",
            "{\"ID\":\"a\"},",
            BODY,
        ),
        ("PUT /v1/session/create ", "1", BODY),
    ] {
        let input = format!("{prefix}{}", part.repeat(size / part.len()));
        call(requests, input.as_bytes());
        // Some of these make the input well-formed.
        for end in ["ID==a", "`", "\"x\"]}", "{}]}", "]", "\"}", "1}"] {
            call(requests, format!("{input}{end}").as_bytes());
        }
    }
}

fn cases() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/differential/cases");
    let files = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    let read = |path: &std::path::PathBuf| std::fs::read_to_string(path).unwrap();
    files.iter().map(read).collect()
}

/// The scenarios of a file of cases, with 1 for every placeholder.
fn scenarios(text: &str) -> impl Iterator<Item = Vec<u8>> {
    text.split("\n== ").map(|scenario| {
        let lines = scenario
            .lines()
            .filter(|line| line.starts_with(char::is_uppercase));
        let mut scenario = lines.collect::<Vec<_>>().join("\n");
        for name in ["index", "http", "session", "earlier session", "modified"] {
            scenario = scenario.replace(&format!("{{{name}}}"), "1");
        }
        scenario.into_bytes()
    })
}

/// A DNS query with an EDNS record.
fn query(name: &str, kind: u16) -> Vec<u8> {
    let mut message = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        message.push(u8::try_from(label.len()).unwrap());
        message.extend(label.bytes());
    }
    message.push(0);
    message.extend(kind.to_be_bytes());
    message.extend([0, 1]);
    message.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
    message
}
