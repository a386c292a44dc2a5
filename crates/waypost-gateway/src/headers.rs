//! Hop-by-hop headers and `Via`.

use http::header;
use http::header::{Entry, HeaderMap, HeaderName, HeaderValue};

/// Identifies a request across all hops.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The id of the instance that sent the response.
pub(crate) const INSTANCE: HeaderName = HeaderName::from_static("x-waypost-instance");
/// The span of the sender (W3C Trace Context).
pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// What tracing systems add to it.
pub(crate) const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// The header in which a calling service states its name.
pub(crate) const CALLER: HeaderName = HeaderName::from_static("x-waypost-caller");

/// Trailers that services send without announcing them. hyper sends only announced trailers with
/// HTTP/1.1, so these are announced for them.
pub(crate) const COMMON_TRAILERS: HeaderValue = HeaderValue::from_static(
    "grpc-status, grpc-message, grpc-status-details-bin, digest, content-digest, repr-digest, \
     content-md5, etag, expires, last-modified, server-timing, signature, signature-input, \
     x-amz-checksum-crc32, x-amz-checksum-crc32c, x-amz-checksum-sha1, x-amz-checksum-sha256, \
     x-checksum, x-stream-error",
);

/// Whether a message has a header that most messages don't have. Comparing the names of a message's few headers
/// takes less time than [`HeaderMap::contains_key`], which computes a hash.
pub(crate) fn has(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.keys().any(|found| found == name)
}

/// The first value of a header that most messages don't have.
pub(crate) fn find<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    if has(headers, name) {
        headers.get(name)
    } else {
        None
    }
}

/// All values of a header that most messages don't have.
fn find_all<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a HeaderValue> {
    let all = has(headers, name).then(|| headers.get_all(name));
    all.into_iter().flatten()
}

/// Removes the headers that apply to one connection only, including those listed in `Connection`.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    // Nearly all `Connection` headers are one of these, which list no header for removal.
    let is_usual = |line: &HeaderValue| {
        let line = line.as_bytes();
        line.eq_ignore_ascii_case(b"keep-alive") || line.eq_ignore_ascii_case(b"close")
    };
    let mut all = headers.iter();
    if all.any(|(name, line)| *name == header::CONNECTION && !is_usual(line)) {
        remove_listed_in_connection(headers);
    }
    remove_where(headers, is_hop_by_hop);
}

/// Removes the headers for whose names `is_removed` returns true.
pub(crate) fn remove_where(headers: &mut HeaderMap, is_removed: impl Fn(&HeaderName) -> bool) {
    while let Some(name) = headers.keys().find(|name| is_removed(name)) {
        let name = name.clone();
        headers.remove(name);
    }
}

/// Whether it is one of the headers of RFC 9110, section 7.6.1, or one of the two of section 11.7 that
/// address a proxy.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "transfer-encoding"
            | "upgrade"
            // Not a standard header. CGI programs would read it as the variable HTTP_PROXY ("httpoxy").
            | "proxy"
    )
}

fn remove_listed_in_connection(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(may_be_listed_in_connection)
        .collect();
    for name in listed {
        headers.remove(name);
    }
}

/// Whether `Connection` may list a header for removal. A client must not be able to remove headers that
/// determine the meaning of the request, or that describe the client (compare CVE-2022-31813).
fn may_be_listed_in_connection(name: &HeaderName) -> bool {
    let is_needed = [
        header::HOST,
        header::CONTENT_LENGTH,
        header::AUTHORIZATION,
        header::COOKIE,
        header::VIA,
        REQUEST_ID,
    ]
    .contains(name);
    !is_needed && !is_forwarding_header(name.as_str())
}

/// Whether a header describes the client of a proxy. Matches underscores too, since CGI programs can't
/// distinguish `X_Forwarded_For` from the real header.
pub(crate) fn is_forwarding_header(name: &str) -> bool {
    let is_like = |start: &str| {
        name.len() >= start.len()
            && name
                .bytes()
                .zip(start.bytes())
                .all(|(a, b)| a == b || (a == b'_' && b == b'-'))
    };
    match name.as_bytes().first() {
        Some(b'f') => name == "forwarded",
        Some(b'x') => is_like("x-forwarded-") || (is_like("x-real-ip") && name.len() == 9),
        _ => false,
    }
}

/// Removes fields that must not be in trailers (RFC 9110, section 6.5.1): a service might mistake them
/// for headers that the gateway has checked.
pub(crate) fn strip_from_trailers(trailers: &mut HeaderMap) {
    remove_where(trailers, |name| {
        let is_control = [
            header::AUTHORIZATION,
            header::CONTENT_ENCODING,
            header::CONTENT_LENGTH,
            header::CONTENT_TYPE,
            header::COOKIE,
            header::EXPECT,
            header::HOST,
            header::RANGE,
            header::SET_COOKIE,
            header::TRAILER,
            header::VIA,
        ]
        .contains(name);
        is_control || is_hop_by_hop(name) || is_forwarding_header(name.as_str())
    });
}

/// Whether a comma-separated header contains a token, ignoring case.
pub(crate) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    find_all(headers, name).any(|line| {
        let mut items = line.to_str().unwrap_or_default().split(',');
        items.any(|item| item.trim().eq_ignore_ascii_case(token))
    })
}

/// Whether the client expects a gRPC status.
pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    find(headers, &header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// Appends this gateway to `Via` (RFC 9110, section 7.6.3).
pub(crate) fn append_via(headers: &mut HeaderMap, via: &HeaderValue) {
    append(headers, header::VIA, via);
}

/// Whether `Via` lists this gateway.
pub(crate) fn has_via(headers: &HeaderMap, pseudonym: &str) -> bool {
    find_all(headers, &header::VIA).any(|line| {
        let mut hops = line.to_str().unwrap_or_default().split(',');
        hops.any(|hop| hop.split_whitespace().nth(1) == Some(pseudonym))
    })
}

/// Appends an item to a list header, joining its lines into one.
pub(crate) fn append(headers: &mut HeaderMap, name: HeaderName, item: &HeaderValue) {
    let name = match headers.entry(name) {
        Entry::Vacant(vacant) => {
            vacant.insert(item.clone());
            return;
        }
        Entry::Occupied(occupied) => occupied.key().clone(),
    };
    let mut list = Vec::new();
    for line in headers.get_all(&name) {
        list.extend_from_slice(line.as_bytes());
        list.extend_from_slice(b", ");
    }
    list.extend_from_slice(item.as_bytes());
    if let Ok(list) = HeaderValue::from_maybe_shared(bytes::Bytes::from(list)) {
        headers.insert(name, list);
    }
}

/// Writes the headers of a switch to another protocol.
pub(crate) fn write_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(header::UPGRADE, protocol);
    headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn headers_listed_in_connection_are_removed_except_those_a_service_relies_on() {
        let mut headers = map(&[
            ("connection", "close, X-Secret"),
            ("connection", "content-length,host, not a name"),
            (
                "connection",
                "X-Forwarded-For, x_forwarded_proto, Forwarded",
            ),
            ("x-secret", "1"),
            ("content-length", "5"),
            ("host", "a"),
            ("forwarded", "for=1.1.1.1"),
            ("x-forwarded-for", "1.1.1.1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("x-kept", "1"),
        ]);
        strip_hop_by_hop(&mut headers);
        assert_eq!(
            names(&headers),
            [
                "content-length",
                "forwarded",
                "host",
                "x-forwarded-for",
                "x-kept"
            ]
        );
    }

    #[test]
    fn headers_of_one_connection_are_removed() {
        for connection in ["keep-alive", "Close", "upgrade"] {
            let mut headers = map(&[
                ("keep-alive", "1"),
                ("proxy-connection", "1"),
                ("proxy-authenticate", "1"),
                ("proxy-authorization", "1"),
                ("te", "1"),
                ("transfer-encoding", "1"),
                ("upgrade", "1"),
                ("proxy", "1"),
                ("trailer", "1"),
                ("close", "1"),
            ]);
            headers.insert("connection", connection.parse().unwrap());
            strip_hop_by_hop(&mut headers);
            // A line that is only `close` doesn't list a header.
            assert_eq!(names(&headers), ["close", "trailer"], "{connection}");
        }
    }

    #[test]
    fn headers_that_describe_the_client_of_a_proxy_are_recognised() {
        for name in [
            "forwarded",
            "x-forwarded-for",
            "x_forwarded_for",
            "x-forwarded_prefix",
            "x-real-ip",
            "x_real_ip",
        ] {
            assert!(is_forwarding_header(name), "{name}");
        }
        for name in [
            "forwarded-for",
            "from",
            "x-forwarded",
            "x-real-ip2",
            "x-real-i",
            "x-api-key",
            "x-request-id",
            "y-forwarded-for",
        ] {
            assert!(!is_forwarding_header(name), "{name}");
        }
    }

    #[test]
    fn a_token_is_found_in_any_line_and_letter_case() {
        let headers = map(&[("vary", "a, Bc"), ("vary", "d")]);
        for (token, found) in [("bc", true), ("d", true), ("a", true), ("b", false)] {
            assert_eq!(has_token(&headers, &header::VARY, token), found, "{token}");
        }
        assert!(!has_token(&headers, &header::CONNECTION, "a"));
    }

    #[test]
    fn a_client_that_sends_grpc_expects_its_status() {
        for (kind, expected) in [
            ("application/grpc", true),
            ("application/grpc+proto", true),
            ("application/json", false),
        ] {
            let headers = map(&[("content-type", kind)]);
            assert_eq!(is_grpc(&headers), expected, "{kind}");
        }
        assert!(!is_grpc(&HeaderMap::new()));
    }

    #[test]
    fn trailers_that_a_service_could_take_for_checked_headers_are_removed() {
        let mut trailers = map(&[
            ("x-forwarded-for", "1.1.1.1"),
            ("x_real_ip", "1.1.1.1"),
            ("host", "a"),
            ("content-length", "1"),
            ("transfer-encoding", "chunked"),
            ("authorization", "Bearer x"),
            ("digest", "abc"),
            ("grpc-status", "0"),
        ]);
        strip_from_trailers(&mut trailers);
        assert_eq!(names(&trailers), ["digest", "grpc-status"]);
    }

    #[test]
    fn a_request_that_passed_this_gateway_before_is_recognised() {
        let mut headers = map(&[("via", "1.0 fred, 1.1 p.example.net (x)")]);
        assert!(!has_via(&headers, "waypost-1"));
        append_via(&mut headers, &HeaderValue::from_static("1.1 waypost-1"));
        assert!(has_via(&headers, "waypost-1") && !has_via(&headers, "waypost-2"));
        assert!(headers["via"].to_str().unwrap().starts_with("1.0 fred, "));
    }
}
