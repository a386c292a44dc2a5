//! Parsers of external input, as functions of bytes that must neither panic nor hang.
//!
//! Not part of the API. The fuzz targets in the folder `fuzz` of the repository call these functions; the
//! tests below call them with mutated valid inputs.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version, header};
use ipnet::IpNet;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use waypost::Instance;

use crate::forwarded::Forwarding;
use crate::framing::Scanner;
use crate::policy::{CompressionRules, Cors, Sticky};
use crate::request_ids::RequestIds;
use crate::rewrite::Rewriter;
use crate::routes::{
    Conditions, Expression, HostPattern, PathPattern, ValuePattern, bare_host, decode_unreserved,
    parse_routes,
};
use crate::{auth, headers, response_framing, target};

/// A routes file, as YAML and as TOML.
pub fn routes_files(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    for name in ["routes.yaml", "routes.toml"] {
        if let Err(error) = parse_routes(Path::new(name), &text) {
            assert!(error.to_string().starts_with(name), "{error}");
        }
    }
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
    let found = [&whole, &pieces].map(|scanner| scanner.fault().get());
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

/// An HTTPRoute, as JSON.
#[cfg(feature = "kubernetes")]
pub fn http_routes(input: &[u8]) {
    crate::gateway_api::fuzz::translate_route(input);
}

/// The objects of a cluster, as a JSON object with a list of each kind.
#[cfg(feature = "kubernetes")]
pub fn gateway_objects(input: &[u8]) {
    crate::gateway_api::fuzz::resolve_objects(input);
}

/// A Secret with a certificate, as JSON.
#[cfg(feature = "kubernetes")]
pub fn gateway_secrets(input: &[u8]) {
    crate::gateway_api::fuzz::read_secret(input);
}

/// Two patterns of hosts and a host, one per line.
pub fn hosts(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.split('\n');
    let patterns = [lines.next(), lines.next()].map(|line| HostPattern::parse(line.unwrap_or("*")));
    let [Ok(one), Ok(other)] = patterns else {
        return;
    };
    let host = bare_host(lines.next().unwrap_or_default());
    let both = one.intersection(&other);
    assert_eq!(both, other.intersection(&one));
    let is_in_both = both.is_some_and(|both| both.matches(&host));
    assert_eq!(is_in_both, one.matches(&host) && other.matches(&host));
}

/// A regular expression and a text, one per line.
pub fn expressions(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (expression, text) = text.split_once('\n').unwrap_or((&text, "a"));
    if let Ok(expression) = Expression::parse(expression) {
        expression.matches(text);
    }
}

/// The name of a query parameter, its value, and a query in front of it, one per line.
pub fn queries(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let mut lines = text.split('\n');
    let mut next = || lines.next().unwrap_or_default();
    let (name, value, before) = (next(), next(), next());
    let holds = |query: &str| {
        let conditions = Conditions {
            query: vec![(name.to_owned(), ValuePattern::Exact(value.to_owned()))],
            ..Conditions::default()
        };
        conditions.hold(&Method::GET, &HeaderMap::new(), Some(query))
    };
    holds(before);
    let encode = |text| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let query = format!("{}={}&{before}", encode(name), encode(value));
    assert!(holds(&query), "{query}");
}

/// Headers of a request, one per line.
pub fn request_headers(input: &[u8]) {
    let headers = header_map(input);
    let id = RequestIds::new().of(&headers);
    assert!((1..=128).contains(&id.len()) && id.to_str().is_ok());
    headers::has_via(&headers, "waypost-1");
    CompressionRules::is_accepted(&Method::GET, Version::HTTP_11, &headers);
    let sticky = Sticky {
        cookie: "at".to_owned(),
        secure: false,
    };
    sticky.key(&headers);
    check_cors(&headers);
    check_forwarding(&headers);

    let mut stripped = headers.clone();
    headers::strip_hop_by_hop(&mut stripped);
    for name in [header::CONNECTION, header::TE, header::UPGRADE] {
        assert!(!stripped.contains_key(name));
    }
    for name in [header::HOST, header::AUTHORIZATION, header::FORWARDED] {
        assert_eq!(headers.get(&name), stripped.get(&name));
    }
    let mut framed = headers.clone();
    if response_framing::disambiguate(&mut framed) {
        let lengths = framed.get_all(header::CONTENT_LENGTH).iter().count();
        let is_coded = framed.contains_key(header::TRANSFER_ENCODING);
        assert!(lengths <= usize::from(!is_coded));
    }
    let mut trailers = headers;
    headers::strip_from_trailers(&mut trailers);
    let mut names = trailers.keys();
    assert!(!names.any(|name| headers::is_forwarding_header(name.as_str())));
}

/// The lines of a head. Those that are no header are ignored.
fn header_map(input: &[u8]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in input.split(|byte| *byte == b'\n') {
        let mut parts = line.splitn(2, |byte| *byte == b':');
        let (Some(name), Some(value)) = (parts.next(), parts.next()) else {
            continue;
        };
        let value = HeaderValue::from_bytes(value.trim_ascii());
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), value) {
            headers.append(name, value);
        }
    }
    headers
}

/// A page of another origin is not allowed anything.
fn check_cors(headers: &HeaderMap) {
    let cors = Cors {
        origins: Some(vec!["https://shop.example".to_owned()]),
        methods: None,
        headers: None,
        expose: None,
        credentials: true,
        max_age: Duration::ZERO,
    };
    let preflight = cors.preflight(&Method::OPTIONS, headers);
    let origin = headers.get(header::ORIGIN).and_then(|it| it.to_str().ok());
    let is_allowed = origin == Some("https://shop.example");
    assert!(preflight.is_none_or(|it| is_allowed == it.status().is_success()));
    let mut response = HeaderMap::new();
    cors.allow(origin.unwrap_or_default(), &mut response);
    let allowed = response.contains_key(header::ACCESS_CONTROL_ALLOW_ORIGIN);
    assert_eq!(allowed, is_allowed);
}

/// What an untrusted client says about itself is replaced. What a trusted proxy says is kept.
fn check_forwarding(headers: &HeaderMap) {
    let peer = IpAddr::from([192, 0, 2, 7]);
    let host = HeaderValue::from_static("gw.test");
    let mut expected = HeaderMap::new();
    let untrusted = Forwarding::new(peer, &[], "http");
    untrusted.write(&mut expected, Some(&host), None);
    let mut sent = headers.clone();
    untrusted.write(&mut sent, Some(&host), None);
    let mut names = sent
        .keys()
        .filter(|name| headers::is_forwarding_header(name.as_str()));
    assert!(names.all(|name| sent.get_all(name).iter().eq(expected.get_all(name))));
    assert_eq!(untrusted.public_scheme(headers), "http");

    let trusted = Forwarding::new(peer, &[IpNet::from(peer)], "http");
    let mut sent = headers.clone();
    trusted.write(&mut sent, Some(&host), None);
    let list = sent.get_all("x-forwarded-for").iter().next_back();
    assert!(list.is_some_and(|list| list.as_bytes().ends_with(b"192.0.2.7")));
    assert!(["http", "https"].contains(&trusted.public_scheme(headers)));
}

#[cfg(test)]
mod tests {
    #[cfg(feature = "kubernetes")]
    use data_encoding::BASE64;

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

    #[cfg(feature = "kubernetes")]
    #[test]
    fn with_the_status_of_mutated_objects_written_nothing_is_left_to_write() {
        run(
            gateway_objects,
            &[
                r#"{"classes":[{"metadata":{"name":"waypost"},"spec":{"controllerName":"waypost.dev/gateway"}}],
                "gateways":[{"metadata":{"name":"front","namespace":"shop"},"spec":{"gatewayClassName":"waypost","listeners":[{"name":"a","hostname":"*.a","port":80,"protocol":"HTTP"},{"name":"b","port":80,"protocol":"HTTPS"},{"name":"c","hostname":"c.a","port":80,"protocol":"HTTPS","tls":{"certificateRefs":[{"name":"t"},{"name":"t","namespace":"pay","kind":"Secret"}]}}]},"status":{"listeners":[{"name":"a","conditions":[{"type":"Accepted","status":"True"}]}]}}],
                "routes":[{"metadata":{"name":"r","namespace":"shop"},"spec":{"parentRefs":[{"name":"front"}],"hostnames":["x.a"],"rules":[{"backendRefs":[{"name":"s","namespace":"pay","port":80}]}]},"status":{"parents":[{"controllerName":"waypost.dev/gateway","parentRef":{"name":"front"},"conditions":[]},{"controllerName":"other"}]}}],
                "grants":[{"metadata":{"namespace":"pay"},"spec":{"from":[{"group":"gateway.networking.k8s.io","kind":"HTTPRoute","namespace":"shop"},{"group":"gateway.networking.k8s.io","kind":"Gateway","namespace":"shop"}],"to":[{"kind":"Service"},{"kind":"Secret","name":"t"}]}}],
                "services":[{"metadata":{"name":"s","namespace":"pay"},"spec":{"ports":[{"port":80}]}}]}"#,
            ],
        );
    }

    #[cfg(feature = "kubernetes")]
    #[test]
    fn what_is_wrong_with_a_mutated_secret_shows_nothing_of_it() {
        let pair = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let encoded = |text: &str| BASE64.encode(text.as_bytes());
        let (certificate, key) = (pair.cert.pem(), pair.signing_key.serialize_pem());
        let secret = |certificate: &str, key: &str| {
            serde_json::json!({
                "type": "kubernetes.io/tls",
                "data": { "tls.crt": encoded(certificate), "tls.key": encoded(key) },
            })
            .to_string()
        };
        let in_one_line = key.replace('\n', "");
        run(
            gateway_secrets,
            &[
                &secret(&certificate, &key),
                &secret(&certificate, &in_one_line),
                &secret(&in_one_line, &key),
            ],
        );
    }

    #[test]
    fn mutated_hosts_are_in_both_patterns_or_not_in_their_intersection() {
        run(
            hosts,
            &[
                "*.shop.example\n*.example\na.shop.example:80",
                "a.b\n*.b\nA.b.",
                "[::1]\n[::1]\n[::1]:80",
            ],
        );
    }

    #[test]
    fn mutated_expressions_do_not_panic() {
        run(
            expressions,
            &[
                "/users/[0-9]+|/all\n/users/7",
                "(?i)a{2,9}[^b]*?\naa",
                r"\p{Greek}+(x|y)$",
            ],
        );
    }

    #[test]
    fn a_parameter_in_front_of_a_mutated_query_is_found() {
        run(
            queries,
            &["beta\na b\nbeta=2&x", "a\n1\n%61=%2", "é+\n&=\n?;+"],
        );
    }

    #[test]
    fn mutated_headers_describe_no_client_and_allow_no_page() {
        run(
            request_headers,
            &[
                "Accept-Encoding: gzip;q=0.5, *;q=0\nCookie: at=00000000000000ff; b\nVia: 1.1 a, 1.0 waypost-1 (x)",
                "X-Forwarded-For: 1.1.1.1\nX_Forwarded-For: 2\nX-Forwarded-Proto: HTTPS\nForwarded: for=\"[::1]\"\nX-Real-IP: 3",
                "Connection: close, te, X-Forwarded-For, authorization\nTE: trailers\nUpgrade: a\nX-Request-Id: 7\nAuthorization: x",
                "Origin: https://shop.example\nAccess-Control-Request-Method: PUT\nContent-Length: 5, 5\nTransfer-Encoding: chunked",
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
        waypost_testkit::mutation::fuzz(target, seeds, FRAGMENTS, 5_000);
    }
}
