//! Rejects requests whose target or framing is ambiguous, and finds out which host they are for.

use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Request, Version, header};

use crate::headers;

/// Why a request is rejected without being forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvalidRequest {
    #[error("the request has both Content-Length and Transfer-Encoding")]
    AmbiguousLength,
    #[error("each line of a request's head must end with CR LF, not with LF alone")]
    BareLineFeed,
    #[error("Transfer-Encoding must be \"chunked\" and occur once")]
    TransferCoding,
    #[error("an HTTP/1.1 request needs exactly one valid Host (RFC 9112, section 3.2)")]
    Host,
    #[error("the path has a \".\" or \"..\" segment; resolve it before sending the request")]
    DotSegment,
    #[error("the method {0} is not forwarded")]
    Method(&'static str),
}

/// Checks a request, and returns the authority that the client requested, if there is one.
pub(crate) fn check<B>(request: &Request<B>) -> Result<Option<HeaderValue>, InvalidRequest> {
    match *request.method() {
        // CONNECT would open a tunnel to any address; TRACE would disclose what proxies in front of
        // the gateway have added.
        Method::CONNECT => return Err(InvalidRequest::Method("CONNECT")),
        Method::TRACE => return Err(InvalidRequest::Method("TRACE")),
        _ => {}
    }
    check_transfer_coding(request.headers())?;
    let host = host(request)?;
    if has_dot_segment(request.uri().path()) {
        return Err(InvalidRequest::DotSegment);
    }
    Ok(host)
}

/// hyper accepts any codings that end in `chunked`. A coding before it, such as `gzip`, would be
/// lost, since the request is forwarded with new framing.
fn check_transfer_coding(headers: &HeaderMap) -> Result<(), InvalidRequest> {
    if !headers::has(headers, &header::TRANSFER_ENCODING) {
        return Ok(());
    }
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Ok(()),
        _ => Err(InvalidRequest::TransferCoding),
    }
}

/// The authority of an absolute URI takes precedence over `Host` (RFC 9112, section 3.2.2), which
/// must be valid nevertheless.
fn host<B>(request: &Request<B>) -> Result<Option<HeaderValue>, InvalidRequest> {
    // Compared by name, without computing a hash, as in `headers::has`.
    let all = request.headers().iter();
    let mut hosts = all.filter_map(|(name, host)| (name == header::HOST).then_some(host));
    let host = match (hosts.next(), hosts.next()) {
        (None, _) if request.version() == Version::HTTP_10 => None,
        (None, _) if request.version() == Version::HTTP_2 => None,
        (Some(host), None) => Some(host),
        _ => return Err(InvalidRequest::Host),
    };
    // A client without an authority sends an empty Host.
    let host = host.filter(|host| !host.is_empty());
    if !host.is_none_or(|host| is_valid_host(host.as_bytes())) {
        return Err(InvalidRequest::Host);
    }
    let Some(authority) = request.uri().authority() else {
        return Ok(host.cloned());
    };
    if !is_valid_host(authority.as_str().as_bytes()) {
        return Err(InvalidRequest::Host);
    }
    // With HTTP/2, both must be the same (RFC 9113, section 8.3.1).
    let differs = host.is_some_and(|host| {
        !host
            .as_bytes()
            .eq_ignore_ascii_case(authority.as_str().as_bytes())
    });
    if differs && request.version() == Version::HTTP_2 {
        return Err(InvalidRequest::Host);
    }
    HeaderValue::from_str(authority.as_str())
        .map(Some)
        .map_err(|_| InvalidRequest::Host)
}

/// A host name or address, with a port in digits if there is one, and without user information.
fn is_valid_host(host: &[u8]) -> bool {
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let is_port = |port: &[u8]| port.len() <= 5 && port.iter().all(u8::is_ascii_digit);
    // The common case, without parsing.
    let end = host.iter().position(|byte| !is_plain(byte));
    let (name, rest) = host.split_at(end.unwrap_or(host.len()));
    match rest {
        [] => !name.is_empty(),
        [b':', port @ ..] if !name.is_empty() => is_port(port),
        _ => match Authority::try_from(host) {
            Ok(authority) => {
                !authority.as_str().contains('@')
                    && !authority.host().is_empty()
                    && authority
                        .as_str()
                        .strip_prefix(authority.host())
                        .is_some_and(|rest| {
                            rest.strip_prefix(':')
                                .map_or(rest.is_empty(), |port| is_port(port.as_bytes()))
                        })
            }
            Err(_) => false,
        },
    }
}

/// Whether a path has a segment `.` or `..`, in any spelling that some server resolves: with encoded dots,
/// between encoded slashes or backslashes, or with parameters after a semicolon. Such a path would lead out of
/// the instance's prefix, or to a path of another route.
pub(crate) fn has_dot_segment(path: &str) -> bool {
    // Most paths have neither character.
    if memchr::memchr2(b'.', b'%', path.as_bytes()).is_none() {
        return false;
    }
    let has_dots = |path: &str| path.split('/').any(|segment| dots(segment.as_bytes()) > 0);
    if has_special(path) {
        has_dots(&normalize(path))
    } else {
        has_dots(path)
    }
}

/// The number of dots of a segment `.` or `..`, whose dots may be encoded; 0 for all other segments.
pub(crate) fn dots(segment: &[u8]) -> usize {
    fn after_dot(text: &[u8]) -> Option<&[u8]> {
        match text {
            [b'.', rest @ ..] | [b'%', b'2', b'e' | b'E', rest @ ..] => Some(rest),
            _ => None,
        }
    }
    match after_dot(segment).map(|rest| (rest, after_dot(rest))) {
        Some(([], _)) => 1,
        Some((_, Some([]))) => 2,
        _ => 0,
    }
}

/// The path as some servers normalize it: nginx decodes and merges slashes, IIS takes backslashes for
/// slashes, and servlet containers ignore the parameters of a segment. `None` if that doesn't change it.
pub(crate) fn normalized_path(path: &str) -> Option<String> {
    if !has_special(path) && !path.contains("//") {
        return None;
    }
    Some(normalize(path)).filter(|read| read != path)
}

/// Whether it has encoded slashes, backslashes or parameters.
fn has_special(path: &str) -> bool {
    let mut found = memchr::memchr3_iter(b'%', b';', b'\\', path.as_bytes());
    found.any(|at| {
        path.get(at..)
            .is_some_and(|rest| !rest.starts_with('%') || begins_with_encoded_slash(rest))
    })
}

fn begins_with_encoded_slash(text: &str) -> bool {
    let code = text.get(..3).unwrap_or_default();
    code.eq_ignore_ascii_case("%2f") || code.eq_ignore_ascii_case("%5c")
}

fn normalize(path: &str) -> String {
    let mut read = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(next) = rest.chars().next() {
        let is_encoded = begins_with_encoded_slash(rest);
        let length = if is_encoded { 3 } else { next.len_utf8() };
        rest = rest.get(length..).unwrap_or_default();
        if next == ';' {
            rest = rest.find('/').map_or("", |end| &rest[end..]);
        } else if !is_encoded && !matches!(next, '/' | '\\') {
            read.push(next);
        } else if !read.ends_with('/') {
            read.push('/');
        }
    }
    read
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_uri(uri: &str) -> Result<Option<HeaderValue>, InvalidRequest> {
        let request = Request::get(uri).header("host", "gw:8000");
        check(&request.body(()).unwrap())
    }

    #[test]
    fn dot_segments_are_rejected_in_every_spelling() {
        for uri in [
            "/auth/../admin",
            "/auth/%2e%2E/admin",
            "/auth/.%2e",
            "/auth/%2E.",
            "/./auth/",
            "/auth/x/.",
            "/auth/..%2fadmin",
            "/auth/x%2F%2e%2E%2Fadmin",
            "/auth/..\\admin",
            "/auth/%5C../admin",
            "/auth/..;x=1/admin",
            "/a/%2F.",
        ] {
            assert_eq!(check_uri(uri), Err(InvalidRequest::DotSegment), "{uri}");
        }
        for uri in [
            "/auth/...",
            "/auth/.well-known",
            "/auth/?q=/../",
            "/a/..%2e",
            "/a/%2Fb;..",
            "/a%",
        ] {
            assert!(check_uri(uri).is_ok(), "{uri}");
        }
    }

    #[test]
    fn paths_are_normalized_as_by_some_servers() {
        for (path, read) in [
            ("//admin", Some("/admin")),
            ("/a%2Fb//c", Some("/a/b/c")),
            ("/a\\b%5cc/", Some("/a/b/c/")),
            ("/a;x=1;y/b;z", Some("/a/b")),
            ("/a/b", None),
            ("/a%20b%3B/é%", None),
            ("", None),
        ] {
            assert_eq!(normalized_path(path).as_deref(), read, "{path}");
        }
    }

    #[test]
    fn a_request_needs_exactly_one_valid_host() {
        let hosts = |hosts: &[&str], version| {
            let mut request = Request::get("/auth/").version(version);
            for host in hosts {
                request = request.header("host", *host);
            }
            check(&request.body(()).unwrap())
        };
        for good in ["a", "a:1", "a.b-c_d:", "[::1]", "[::1]:8000"] {
            let read = hosts(&[good], Version::HTTP_11).unwrap().unwrap();
            assert_eq!(read, good);
        }
        assert_eq!(hosts(&[""], Version::HTTP_11), Ok(None));
        assert_eq!(hosts(&[], Version::HTTP_10), Ok(None));
        for bad in [
            &[][..],
            &["a", "a"],
            &["a b"],
            &["me@a"],
            &["a/b"],
            &["a:b"],
            &["a:1:2"],
            &[":80"],
            &["a:123456"],
            &["[::1]x"],
        ] {
            assert_eq!(
                hosts(bad, Version::HTTP_11),
                Err(InvalidRequest::Host),
                "{bad:?}"
            );
        }
    }

    #[test]
    fn an_absolute_target_takes_precedence_over_a_valid_host() {
        let read = |host| {
            let request = Request::get("http://b:2/auth/").header("host", host);
            check(&request.body(()).unwrap())
        };
        assert_eq!(read("a:1").unwrap().unwrap(), "b:2");
        assert_eq!(read("a b"), Err(InvalidRequest::Host));
    }

    #[test]
    fn only_a_single_chunked_coding_is_allowed() {
        for (codings, allowed) in [
            (&["chunked"][..], true),
            (&["Chunked"], true),
            (&["gzip, chunked"], false),
            (&["chunked", "chunked"], false),
            (&["identity"], false),
        ] {
            let mut request = Request::post("/auth/").header("host", "a");
            for coding in codings {
                request = request.header("transfer-encoding", *coding);
            }
            assert_eq!(
                check(&request.body(()).unwrap()).is_ok(),
                allowed,
                "{codings:?}"
            );
        }
    }
}
