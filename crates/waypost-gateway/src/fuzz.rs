//! Parsers of external input, as functions of bytes that must neither panic nor hang.
//!
//! Not part of the API. The fuzz targets in the folder `fuzz` of the repository call these functions; the
//! tests below call them with mutated valid inputs.

use std::path::Path;

use http::{HeaderMap, HeaderValue, Request};
use waypost::Instance;

use crate::auth;
use crate::framing::Scanner;
use crate::rewrite::Rewriter;
use crate::routes::{PathPattern, decode_unreserved, parse_routes};
use crate::target;

/// A routes file, as YAML and as TOML.
pub fn routes_files(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    for name in ["routes.yaml", "routes.toml"] {
        if let Err(error) = parse_routes(Path::new(name), &text) {
            assert!(error.to_string().starts_with(name), "{error}");
        }
    }
}

/// An HTTPRoute, as JSON.
#[cfg(feature = "kubernetes")]
pub fn http_routes(input: &[u8]) {
    crate::gateway_api::translate_text(input);
}

/// A pattern and a path, one per line.
pub fn paths(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (pattern, path) = text.split_once('\n').unwrap_or((&text, "/"));
    if let Some(decoded) = decode_unreserved(path) {
        assert_ne!(decoded, path);
    }
    let parsed = [
        PathPattern::prefix(pattern),
        PathPattern::exact(pattern),
        PathPattern::template(pattern),
    ];
    for pattern in parsed.into_iter().flatten() {
        if pattern.matches(path) {
            pattern.parameters(path);
        }
        assert!(
            pattern
                .first_segment()
                .is_none_or(|first| !first.contains('/'))
        );
    }
}

/// The bytes of a connection. The requests that are found don't depend on how the bytes are split.
pub fn request_heads(input: &[u8]) {
    let mut whole = Scanner::default();
    whole.scan(input);
    let mut pieces = Scanner::default();
    for byte in input {
        pieces.scan(std::slice::from_ref(byte));
    }
    let found = [&whole, &pieces].map(|scanner| scanner.conflict().is_detected());
    assert_eq!(found[0], found[1]);
}

/// A target and a host, one per line.
pub fn targets(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (target, host) = text.split_once('\n').unwrap_or((&text, "a"));
    if let Ok(request) = Request::get(target).header("host", host).body(()) {
        let _ = target::check(&request);
    }
}

/// The value of a response header with references in it.
pub fn references(input: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(input) else {
        return;
    };
    let Ok(name) = "auth".parse() else {
        return;
    };
    let instance = Instance::from_url(name, "http://10.0.0.7:80/v2").and_then(|new| new.build());
    let (Ok(instance), host) = (instance, HeaderValue::from_static("gw.test")) else {
        return;
    };
    let rewriter = Rewriter {
        prefix: "/auth",
        replacement: "",
        instance: &instance,
        host: Some(&host),
        requested: "/v2/x",
    };
    let mut headers = HeaderMap::new();
    for name in ["location", "refresh", "link", "set-cookie"] {
        headers.insert(name, value.clone());
    }
    rewriter.rewrite(&mut headers);
}

/// The query of a request, and from the second line on a file of API keys.
pub fn api_keys(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (query, file) = text.split_once('\n').unwrap_or((&text, ""));
    auth::fuzz::accepts_api_key(query, file);
}

/// A token, and from the second line on a JSON Web Key Set.
pub fn tokens(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (token, keys) = text.split_once('\n').unwrap_or((&text, ""));
    auth::fuzz::accepts_token(token, keys.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The token of RFC 7515, appendix A.3.
    const TOKEN: &str = "eyJhbGciOiJFUzI1NiJ9.\
        eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.\
        DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q";

    /// Fragments that the mutator inserts.
    const FRAGMENTS: &[&str] = &[
        "\r\n",
        "\n",
        "\r",
        ":",
        " ",
        "\t",
        "/",
        "//",
        "..",
        "%2e",
        "%2F",
        "%",
        "{",
        "}",
        "{id}",
        "*",
        "http://",
        "@",
        "[::1]",
        "?",
        "#",
        ";",
        "Path=",
        "url=",
        "<",
        ">",
        "chunked",
        "0",
        "ffffffffffffffff",
        "18446744073709551616",
        "-1",
        "é",
        "\u{0}",
        "null",
        "[",
        "]",
        "- ",
        "&a ",
        "*a",
        "\"",
        "'",
        "10s",
        "5MB",
    ];

    #[test]
    fn mutated_routes_files_do_not_panic() {
        run(
            routes_files,
            &[
                "routes:\n- match: {path: /a, hosts: [\"*.x\"]}\n  service: a\n  timeouts: {total: 1s}\n",
                "routes: [{split: [{service: a, weight: 1}], rate_limit: {requests: 1}}]",
                "[[routes]]\nservice = \"a\"\nmatch.template = \"/a/{b}\"\nmax_body = \"1MB\"\n",
            ],
        );
    }

    #[test]
    fn mutated_paths_do_not_panic() {
        run(
            paths,
            &["/a/{id}/b\n/a/7/b", "/shop\n/shop/x", "/a\n/%61%2F%2e"],
        );
    }

    #[test]
    fn mutated_request_heads_are_found_however_they_are_cut() {
        run(
            request_heads,
            &[
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhiGET / HTTP/1.1\r\n\r\n",
                "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nA: b\r\n\r\n",
                "POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            ],
        );
    }

    #[cfg(feature = "kubernetes")]
    #[test]
    fn mutated_http_routes_do_not_panic() {
        run(
            http_routes,
            &[
                r#"{"spec":{"hostnames":["*.a.example"],"rules":[{"matches":[{"path":{"type":"RegularExpression","value":"/a+"},"headers":[{"name":"x-a","value":"1"}]}],"timeouts":{"request":"1h1m"},"backendRefs":[{"name":"a","port":80,"weight":2}]}]}}"#,
                r#"{"spec":{"rules":[{"filters":[{"type":"RequestRedirect","requestRedirect":{"port":8443,"path":{"type":"ReplacePrefixMatch","replacePrefixMatch":"/b"}}},{"type":"RequestMirror","requestMirror":{"backendRef":{"name":"b"},"fraction":{"numerator":1}}}]}]}}"#,
            ],
        );
    }

    #[test]
    fn mutated_targets_do_not_panic() {
        run(
            targets,
            &[
                "/auth/x?y\na:80",
                "http://b:2/x\n[::1]:80",
                "/a/%2e%2e/b\na",
            ],
        );
    }

    #[test]
    fn mutated_references_do_not_panic() {
        run(
            references,
            &[
                "http://gw.test/a?b#c",
                "//10.0.0.7/v2/a",
                "5; url='/next'",
                "</a>; rel=next, <b>",
                "sid=1; Path=/admin; Secure",
            ],
        );
    }

    #[test]
    fn a_mutated_query_passes_no_api_key_on() {
        assert!(auth::fuzz::accepts_api_key("a&key=x", "n x"));
        run(
            api_keys,
            &[
                "a=1&key=secret&b\n# keys\nmobile secret\n",
                "%6bey=x%2By\na x+y, b sha256:00",
                "key=&key=1\na 1",
            ],
        );
    }

    #[test]
    fn a_mutated_token_is_not_accepted_with_other_claims() {
        assert!(auth::fuzz::accepts_token(TOKEN, b""));
        let with = |keys| format!("{TOKEN}\n{keys}");
        run(
            tokens,
            &[
                TOKEN,
                &with(
                    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#,
                ),
                &with(
                    r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB","alg":"RS256","use":"sig"},{"kty":"oct","k":"AQAB"}]}"#,
                ),
            ],
        );
    }

    fn run(target: fn(&[u8]), seeds: &[&str]) {
        waypost_testkit::call_with_mutations(target, seeds, FRAGMENTS);
    }
}
