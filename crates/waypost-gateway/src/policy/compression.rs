//! Decides which responses of a route are compressed.

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Response, StatusCode, Version};
use hyper::body::Body;

use crate::headers;

/// Compression of a route's responses with gzip.
#[derive(Clone, Debug)]
pub(crate) struct CompressionRules {
    /// The smallest body that is compressed, in bytes. Bodies of unknown length are compressed.
    pub(crate) min_size: u64,
    /// Media types; `*` stands for any text.
    pub(crate) types: Vec<String>,
    /// 1 (fast) to 9 (small).
    pub(crate) level: u32,
}

/// Media types that are compressed by default.
pub(crate) const COMPRESSED_TYPES: [&str; 8] = [
    "text/*",
    "application/json",
    "application/*+json",
    "application/javascript",
    "application/xml",
    "application/*+xml",
    "application/wasm",
    "image/svg+xml",
];

/// Digests of the bytes that are sent, which compression would make wrong.
const DIGESTS: [&str; 4] = ["content-digest", "repr-digest", "digest", "content-md5"];

impl CompressionRules {
    /// Whether the client accepts gzip. An HTTP/1.0 client needs the length of the body to keep its
    /// connection.
    pub(crate) fn is_accepted(method: &Method, version: Version, headers: &HeaderMap) -> bool {
        let values = headers.get_all(header::ACCEPT_ENCODING).iter();
        let items = values.filter_map(|value| value.to_str().ok());
        let mut named = None;
        let mut any = None;
        for item in items.flat_map(|value| value.split(',')) {
            let mut parts = item.split(';').map(str::trim);
            let coding = parts.next().unwrap_or_default();
            let quality = parts.find_map(|part| part.strip_prefix("q="));
            let is_wanted = quality.is_none_or(|q| q.parse().is_ok_and(|q: f32| q > 0.0));
            if coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip") {
                named = Some(is_wanted);
            } else if coding == "*" {
                any = Some(is_wanted);
            }
        }
        *method != Method::HEAD && version != Version::HTTP_10 && named.or(any).unwrap_or(false)
    }

    /// Prepares the head of a response, and returns whether its body has to be compressed.
    pub(crate) fn prepare<B: Body>(&self, is_accepted: bool, response: &mut Response<B>) -> bool {
        // A response to HEAD has no body, but must have the same headers as the response to GET.
        let declared = response.headers().get(header::CONTENT_LENGTH);
        let declared = declared.and_then(|size| size.to_str().ok()?.parse().ok());
        let size = declared.or_else(|| response.body().size_hint().exact());
        let is_small = size.is_some_and(|size| size < self.min_size);
        if is_small || !self.can_compress(response) {
            return false;
        }
        // Tells caches that other clients get a different response.
        let headers = response.headers_mut();
        let vary = HeaderValue::from_static("accept-encoding");
        if !headers::has_token(headers, &header::VARY, "accept-encoding")
            && !headers::has_token(headers, &header::VARY, "*")
        {
            headers::append(headers, header::VARY, &vary);
        }
        if !is_accepted {
            return false;
        }
        let gzip = HeaderValue::from_static("gzip");
        headers.insert(header::CONTENT_ENCODING, gzip);
        headers.remove(header::CONTENT_LENGTH);
        headers.remove(header::ACCEPT_RANGES);
        if let Some(tag) = headers.get(header::ETAG)
            && !tag.as_bytes().starts_with(b"W/")
            && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
        {
            // The bytes differ, so the tag can't be a strong one (RFC 9110, section 8.8.1).
            headers.insert(header::ETAG, weak);
        }
        true
    }

    fn can_compress<B>(&self, response: &Response<B>) -> bool {
        let headers = response.headers();
        let status = response.status();
        let has_body = status != StatusCode::NO_CONTENT
            && status != StatusCode::PARTIAL_CONTENT
            && status != StatusCode::NOT_MODIFIED
            && !status.is_informational();
        let is_whole = !headers.contains_key(header::CONTENT_RANGE);
        let may_change = !headers.contains_key(header::CONTENT_ENCODING)
            && !headers::has_token(headers, &header::CACHE_CONTROL, "no-transform")
            && !DIGESTS.iter().any(|name| headers.contains_key(*name));
        has_body && is_whole && may_change && self.is_compressed_type(headers)
    }

    fn is_compressed_type(&self, headers: &HeaderMap) -> bool {
        let value = headers.get(header::CONTENT_TYPE);
        let value = value.and_then(|value| value.to_str().ok()).unwrap_or("");
        let kind = value.split(';').next().unwrap_or("").trim();
        let kind = kind.to_ascii_lowercase();
        // Events and messages have to arrive one by one, in programs that don't expect compression.
        if kind == "text/event-stream" || kind.starts_with("application/grpc") {
            return false;
        }
        self.types
            .iter()
            .any(|pattern| match pattern.split_once('*') {
                Some((start, end)) => {
                    kind.len() >= start.len() + end.len()
                        && kind.starts_with(start)
                        && kind.ends_with(end)
                }
                None => *pattern == kind,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(value: &'static str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
        CompressionRules::is_accepted(&Method::GET, Version::HTTP_11, &headers)
    }

    #[test]
    fn gzip_is_used_only_if_the_client_accepts_it() {
        for value in ["gzip", "br, GZIP;q=0.5", "*", "deflate, *;q=0.1", "x-gzip"] {
            assert!(accepts(value), "{value}");
        }
        for value in ["", "br", "gzip;q=0", "gzip; q=0.0", "*, gzip;q=0", "*;q=0"] {
            assert!(!accepts(value), "{value}");
        }
        let none = HeaderMap::new();
        assert!(!CompressionRules::is_accepted(
            &Method::GET,
            Version::HTTP_11,
            &none
        ));
    }

    #[test]
    fn some_requests_never_get_a_compressed_response() {
        let mut headers = HeaderMap::new();
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        for (method, version, accepted) in [
            (Method::GET, Version::HTTP_11, true),
            (Method::POST, Version::HTTP_2, true),
            (Method::HEAD, Version::HTTP_11, false),
            (Method::GET, Version::HTTP_10, false),
        ] {
            let found = CompressionRules::is_accepted(&method, version, &headers);
            assert_eq!(found, accepted, "{method} {version:?}");
        }
    }

    #[test]
    fn a_response_is_compressed_only_if_its_content_may_be() {
        let types = ["text/*", "application/*+json", "application/wasm", "a/b*b"];
        let rules = CompressionRules {
            min_size: 100,
            types: types.map(str::to_owned).to_vec(),
            level: 5,
        };
        for (status, (name, value), compressed) in [
            (200, ("content-type", "text/html"), true),
            (200, ("content-type", "TEXT/html; charset=utf-8"), true),
            (200, ("content-type", "application/ld+json"), true),
            (200, ("content-type", "application/+json"), true),
            (200, ("content-type", "application/json"), false),
            (200, ("content-type", "application/wasm"), true),
            (200, ("content-type", "application/wasm2"), false),
            (200, ("content-type", "text/event-stream"), false),
            (200, ("content-type", "image/png"), false),
            (200, ("content-type", "a/b"), false),
            (200, ("content-type", "a/bb"), true),
            (404, ("x-other", ""), true),
            (206, ("x-other", ""), false),
            (204, ("x-other", ""), false),
            (304, ("x-other", ""), false),
            (103, ("x-other", ""), false),
            (200, ("content-length", "99"), false),
            (200, ("content-length", "100"), true),
            (200, ("content-range", "bytes 0-9/10"), false),
            (200, ("content-encoding", "br"), false),
            (200, ("cache-control", "public, no-transform"), false),
            (200, ("cache-control", "public"), true),
            (200, ("content-digest", "sha-256=:x:"), false),
            (200, ("repr-digest", "sha-256=:x:"), false),
            (200, ("digest", "sha-256=x"), false),
            (200, ("content-md5", "x"), false),
        ] {
            let body = http_body_util::Full::new(bytes::Bytes::from(vec![b'x'; 200]));
            let mut response = Response::new(body);
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            let headers = response.headers_mut();
            headers.insert("content-type", HeaderValue::from_static("text/plain"));
            headers.insert(name, HeaderValue::from_static(value));
            let found = rules.prepare(true, &mut response);
            assert_eq!(found, compressed, "{status} {name}: {value}");
            let headers = response.headers();
            assert_eq!(headers.contains_key("vary"), compressed, "{name}: {value}");
        }
    }

    #[test]
    fn caches_are_told_once_that_other_clients_get_another_response() {
        let rules = CompressionRules {
            min_size: 0,
            types: vec!["text/plain".to_owned()],
            level: 5,
        };
        for (vary, tag, expected) in [
            (None, "\"a\"", ("accept-encoding", "W/\"a\"")),
            (
                Some("cookie"),
                "W/\"a\"",
                ("cookie, accept-encoding", "W/\"a\""),
            ),
            (
                Some("Accept-Encoding"),
                "\"a\"",
                ("Accept-Encoding", "W/\"a\""),
            ),
            (Some("*"), "\"a\"", ("*", "W/\"a\"")),
        ] {
            let mut response = Response::new(http_body_util::Full::new(bytes::Bytes::new()));
            let headers = response.headers_mut();
            headers.insert("content-type", HeaderValue::from_static("text/plain"));
            headers.insert("etag", HeaderValue::from_static(tag));
            if let Some(vary) = vary {
                headers.insert("vary", HeaderValue::from_static(vary));
            }
            assert!(rules.prepare(true, &mut response));
            let headers = response.headers();
            assert_eq!(
                (&headers["vary"], &headers["etag"]),
                (
                    &HeaderValue::from_static(expected.0),
                    &HeaderValue::from_static(expected.1)
                )
            );
        }
    }
}
