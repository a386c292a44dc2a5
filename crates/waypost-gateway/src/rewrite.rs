//! Adds the prefix of a route to paths in response headers.
//!
//! A service that doesn't know its prefix redirects to `/login`, which is `/{service}/login` for clients
//! of the gateway. The same applies to the path of a cookie, and to `Content-Location`, `Refresh` and
//! `Link`.

use http::header;
use http::{HeaderMap, HeaderName, HeaderValue};
use waypost::Instance;

use crate::target::dots;

/// The references of one response.
pub(crate) struct Rewriter<'a> {
    /// The part of the path that the service doesn't see, such as `/auth`.
    pub(crate) prefix: &'a str,
    /// The path that the service sees instead; usually empty.
    pub(crate) replacement: &'a str,
    pub(crate) instance: &'a Instance,
    /// The authority that the client requested.
    pub(crate) host: Option<&'a HeaderValue>,
    /// The path of the request that the service received.
    pub(crate) requested: &'a str,
}

/// The headers that consist of a single reference.
const REFERENCES: [HeaderName; 2] = [header::LOCATION, header::CONTENT_LOCATION];

/// All headers that may be rewritten.
const REWRITTEN: [HeaderName; 5] = [
    header::LOCATION,
    header::CONTENT_LOCATION,
    header::LINK,
    header::REFRESH,
    header::SET_COOKIE,
];

/// Whether a response has anything to rewrite.
pub(crate) fn is_needed(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| REWRITTEN.contains(name))
}

impl Rewriter<'_> {
    /// Rewrites the references in the headers of a response.
    pub(crate) fn rewrite(&self, headers: &mut HeaderMap) {
        for name in REFERENCES {
            if let Some(value) = headers.get_mut(name) {
                replace(value, |text| self.reference(text));
            }
        }
        if let Some(value) = headers.get_mut(header::REFRESH) {
            replace(value, |text| self.refresh(text));
        }
        if let header::Entry::Occupied(mut links) = headers.entry(header::LINK) {
            for value in links.iter_mut() {
                replace(value, |text| self.links(text));
            }
        }
        if let header::Entry::Occupied(mut cookies) = headers.entry(header::SET_COOKIE) {
            for value in cookies.iter_mut() {
                replace(value, |text| self.cookie(text));
            }
        }
    }

    /// The reference to send to the client, or `None` if it doesn't have to be changed.
    ///
    /// A reference to the service itself is a path, or a URL with the service's own address or the
    /// client's `Host`. References to other hosts, and relative ones, are not changed.
    fn reference(&self, text: &[u8]) -> Option<Vec<u8>> {
        let text = text.trim_ascii();
        let (origin, path) = if let Some(rest) = text.strip_prefix(b"//") {
            let (authority, path) = rest.split_at_checked(end_of_authority(rest))?;
            (self.own_origin(authority, b"//")?, path)
        } else if text.starts_with(b"/") {
            (Vec::new(), text)
        } else {
            let rest = after_scheme(text)?;
            let (authority, path) = rest.split_at_checked(end_of_authority(rest))?;
            let before = text.get(..text.len() - rest.len())?;
            (self.own_origin(authority, before)?, path)
        };
        let mut rewritten = origin;
        match self.path(path) {
            Some(path) => rewritten.extend_from_slice(&path),
            None if is_ascii(text) => return None,
            None => rewritten.extend_from_slice(path),
        }
        Some(percent_encode(rewritten))
    }

    /// The text before the path: empty if the authority is the service's own address, which the client
    /// can't reach; unchanged if it is the client's. `None` for any other authority.
    fn own_origin(&self, authority: &[u8], before: &[u8]) -> Option<Vec<u8>> {
        let named = normalize(authority);
        if named == normalize(self.instance.authority().as_bytes()) {
            return Some(Vec::new());
        }
        let host = normalize(self.host?.as_bytes());
        (named == host).then(|| [before, authority].concat())
    }

    /// The path with the prefix, or `None` if it already has it.
    fn path(&self, path: &[u8]) -> Option<Vec<u8>> {
        // `/../a` is `/a` for a client, but `/auth/../a` would leave the prefix.
        let clean = without_dot_segments(path);
        let path = clean.as_deref().unwrap_or(path);
        let own = strip_prefix(path, self.instance.path_prefix()).unwrap_or(path);
        let own = strip_prefix(own, self.replacement).unwrap_or(own);
        // A service that knows its prefix, from `X-Forwarded-Prefix`, writes it itself. If the service
        // received a path that begins with the prefix, it has such paths itself.
        let has_such_paths = strip_prefix(self.requested.as_bytes(), self.prefix).is_some();
        if strip_prefix(path, self.prefix).is_some() && !has_such_paths {
            return clean;
        }
        Some([self.prefix.as_bytes(), own].concat())
    }

    /// `Refresh: 5; url=/next`.
    fn refresh(&self, text: &[u8]) -> Option<Vec<u8>> {
        let at = text
            .windows(4)
            .position(|part| part.eq_ignore_ascii_case(b"url="))?;
        let (before, url) = text.split_at_checked(at + 4)?;
        let quote = |byte: &u8| matches!(byte, b'"' | b'\'');
        let url = url.trim_ascii();
        let url = url
            .strip_prefix(b"\"")
            .or(url.strip_prefix(b"'"))
            .unwrap_or(url);
        let url = url.split(quote).next()?;
        let url = self.reference(url)?;
        Some([before, &url].concat())
    }

    /// `Link: </style.css>; rel=preload, </next>; rel=next`.
    fn links(&self, text: &[u8]) -> Option<Vec<u8>> {
        let mut rewritten = Vec::with_capacity(text.len() + self.prefix.len());
        let mut rest = text;
        let mut is_changed = false;
        while let Some(start) = rest.iter().position(|byte| *byte == b'<') {
            let length = rest.get(start..)?.iter().position(|byte| *byte == b'>')?;
            let (before, url) = (rest.get(..=start)?, rest.get(start + 1..start + length)?);
            rewritten.extend_from_slice(before);
            match self.reference(url) {
                Some(url) => {
                    is_changed = true;
                    rewritten.extend_from_slice(&url);
                }
                None => rewritten.extend_from_slice(url),
            }
            rest = rest.get(start + length..)?;
        }
        rewritten.extend_from_slice(rest);
        is_changed.then_some(rewritten)
    }

    /// The `Path` of a cookie. A cookie for `/` is not changed: it reaches the service, and services with
    /// a common log-in rely on it.
    fn cookie(&self, text: &[u8]) -> Option<Vec<u8>> {
        let mut parts: Vec<Vec<u8>> = text
            .split(|byte| *byte == b';')
            .map(<[u8]>::to_vec)
            .collect();
        let mut is_changed = false;
        for part in parts.iter_mut().skip(1) {
            let Some(equals) = part.iter().position(|byte| *byte == b'=') else {
                continue;
            };
            let (name, path) = (part.get(..equals)?.trim_ascii(), part.get(equals + 1..)?);
            let path = path.trim_ascii();
            if !name.eq_ignore_ascii_case(b"path") || path == b"/" || !path.starts_with(b"/") {
                continue;
            }
            if let Some(path) = self.path(path) {
                *part = [b" Path=", &*path].concat();
                is_changed = true;
            }
        }
        is_changed.then(|| parts.join(&b';'))
    }
}

/// The path as clients resolve it (RFC 3986, section 5.2.4); `None` if it has no dot segments.
fn without_dot_segments(text: &[u8]) -> Option<Vec<u8>> {
    let end = text.iter().position(|byte| matches!(byte, b'?' | b'#'));
    let (path, rest) = text.split_at_checked(end.unwrap_or(text.len()))?;
    let mut kept: Vec<&[u8]> = Vec::new();
    let mut is_changed = false;
    let mut ends_with_dots = false;
    for segment in path.split(|byte| *byte == b'/').skip(1) {
        let dots = dots(segment);
        ends_with_dots = dots > 0;
        is_changed |= ends_with_dots;
        match dots {
            0 => kept.push(segment),
            1 => {}
            _ => drop(kept.pop()),
        }
    }
    if ends_with_dots {
        kept.push(b"");
    }
    is_changed.then(|| [&b"/"[..], &kept.join(&b'/'), rest].concat())
}

fn replace(value: &mut HeaderValue, rewrite: impl FnOnce(&[u8]) -> Option<Vec<u8>>) {
    let rewritten = rewrite(value.as_bytes());
    if let Some(new) = rewritten.and_then(|new| HeaderValue::from_bytes(&new).ok()) {
        *value = new;
    }
}

/// What follows `://` in an absolute web URL. `None` without an authority.
fn after_scheme(text: &[u8]) -> Option<&[u8]> {
    let end = text
        .iter()
        .position(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.')))?;
    let (scheme, rest) = text.split_at_checked(end)?;
    let is_web = [&b"http"[..], b"https", b"ws", b"wss"]
        .iter()
        .any(|web| web.eq_ignore_ascii_case(scheme));
    rest.strip_prefix(b"://").filter(|_| is_web)
}

fn end_of_authority(text: &[u8]) -> usize {
    text.iter()
        .position(|byte| matches!(byte, b'/' | b'?' | b'#' | b'\\'))
        .unwrap_or(text.len())
}

/// The authority in lower case, without a port that is the default of a web scheme.
fn normalize(authority: &[u8]) -> Vec<u8> {
    let lower = authority.to_ascii_lowercase();
    let host = lower.strip_suffix(b":80");
    match host.or_else(|| lower.strip_suffix(b":443")) {
        Some(host) => host.to_vec(),
        None => lower,
    }
}

/// The rest of the path after `prefix`, if the prefix ends at a segment boundary.
fn strip_prefix<'a>(path: &'a [u8], prefix: &str) -> Option<&'a [u8]> {
    path.strip_prefix(prefix.as_bytes())
        .filter(|rest| matches!(rest, [] | [b'/' | b'?' | b'#', ..]))
}

fn is_ascii(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_graphic)
}

/// Encodes characters that a URL must not contain, as clients do (RFC 3987, section 3.1).
fn percent_encode(text: Vec<u8>) -> Vec<u8> {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    if is_ascii(&text) {
        return text;
    }
    let mut encoded = Vec::with_capacity(text.len() + 16);
    for byte in text {
        if byte.is_ascii_graphic() {
            encoded.push(byte);
        } else {
            let digits = [byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)]);
            encoded.extend_from_slice(&[b'%', digits[0], digits[1]]);
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewriter<'a>(
        instance: &'a Instance,
        host: &'a HeaderValue,
        requested: &'a str,
    ) -> Rewriter<'a> {
        Rewriter {
            prefix: "/auth",
            replacement: "",
            instance,
            host: Some(host),
            requested,
        }
    }

    fn instance() -> Instance {
        let instance = Instance::from_url("auth".parse().unwrap(), "http://10.0.0.7:80/v2");
        instance.unwrap().build().unwrap()
    }

    #[test]
    fn only_references_to_the_service_itself_get_the_prefix() {
        let (instance, host) = (instance(), HeaderValue::from_static("shop:8000"));
        let rewriter = rewriter(&instance, &host, "/v2/x");
        for (location, rewritten) in [
            ("/login?x=1#top", Some("/auth/login?x=1#top")),
            ("/v2/login", Some("/auth/login")),
            ("/v2", Some("/auth")),
            ("/v20/login", Some("/auth/v20/login")),
            ("http://10.0.0.7:80/v2/a", Some("/auth/a")),
            ("http://10.0.0.7/v2/a", Some("/auth/a")),
            ("http://shop:8000/a/", Some("http://shop:8000/auth/a/")),
            ("https://shop:8000/a/", Some("https://shop:8000/auth/a/")),
            ("HTTP://SHOP:8000/a", Some("HTTP://SHOP:8000/auth/a")),
            ("http://shop:8000", Some("http://shop:8000/auth")),
            ("//shop:8000/a", Some("//shop:8000/auth/a")),
            ("/auth/login", None),
            ("/../login?a=/../b", Some("/auth/login?a=/../b")),
            ("/a/./b/%2E%2e/.", Some("/auth/a/")),
            ("/..", Some("/auth/")),
            ("/auth/../../x", Some("/auth/x")),
            (
                "http://shop:8000/auth/./login",
                Some("http://shop:8000/auth/login"),
            ),
            ("http://shop:8000/auth/login", None),
            ("http://shop/a", None),
            ("login", None),
            ("../login", None),
            ("?page=2", None),
            ("//other/login", None),
            ("https://other/login", None),
            ("mailto:me@shop", None),
        ] {
            let found = rewriter.reference(location.as_bytes());
            let found = found.map(|found| String::from_utf8(found).unwrap());
            assert_eq!(found.as_deref(), rewritten, "{location}");
        }
    }

    #[test]
    fn the_scheme_the_case_and_the_default_port_of_the_host_do_not_matter() {
        let (instance, host) = (instance(), HeaderValue::from_static("gw.test"));
        let rewriter = rewriter(&instance, &host, "/v2/x");
        for (location, rewritten) in [
            ("https://gw.test/cart", "https://gw.test/auth/cart"),
            ("http://GW.test:80/cart", "http://GW.test:80/auth/cart"),
            ("https://gw.test:443/cart", "https://gw.test:443/auth/cart"),
        ] {
            let found = rewriter.reference(location.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(found).unwrap(), rewritten);
        }
    }

    #[test]
    fn raw_bytes_in_a_location_are_encoded() {
        let (instance, host) = (instance(), HeaderValue::from_static("gw.test"));
        let rewriter = rewriter(&instance, &host, "/v2/x");
        for (location, rewritten) in [
            ("/café", "/auth/caf%C3%A9"),
            ("/a b", "/auth/a%20b"),
            ("/auth/café", "/auth/caf%C3%A9"),
        ] {
            let found = rewriter.reference(location.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(found).unwrap(), rewritten);
        }
    }

    #[test]
    fn a_service_whose_own_paths_begin_with_its_name_gets_the_prefix_in_front() {
        let plain = Instance::from_url("auth".parse().unwrap(), "http://10.0.0.7:80");
        let plain = plain.unwrap().build().unwrap();
        let host = HeaderValue::from_static("gw.test");
        for (requested, rewritten) in [("/auth", Some("/auth/auth/")), ("/x", None)] {
            let found = rewriter(&plain, &host, requested).reference(b"/auth/");
            let found = found.map(|found| String::from_utf8(found).unwrap());
            assert_eq!(found.as_deref(), rewritten, "{requested}");
        }
    }

    #[test]
    fn paths_in_other_headers_get_the_prefix_too() {
        let (instance, host) = (instance(), HeaderValue::from_static("gw.test"));
        let rewriter = rewriter(&instance, &host, "/v2/x");
        for (name, value, rewritten) in [
            (
                "set-cookie",
                "sid=1; Path=/admin",
                "sid=1; Path=/auth/admin",
            ),
            (
                "set-cookie",
                "sid=\"/x\"; HttpOnly; path=/v2/admin; Secure",
                "sid=\"/x\"; HttpOnly; Path=/auth/admin; Secure",
            ),
            ("set-cookie", "sid=1; Path=/", "sid=1; Path=/"),
            ("set-cookie", "sid=1; Path=/auth", "sid=1; Path=/auth"),
            ("set-cookie", "path=/admin", "path=/admin"),
            ("content-location", "/doc", "/auth/doc"),
            ("refresh", "5; url=/next", "5; url=/auth/next"),
            ("refresh", "5; URL='/next'", "5; URL=/auth/next"),
            ("refresh", "5", "5"),
            (
                "link",
                "</s.css>; rel=preload, <https://cdn/x>; rel=x, </n>; rel=next",
                "</auth/s.css>; rel=preload, <https://cdn/x>; rel=x, </auth/n>; rel=next",
            ),
        ] {
            let mut headers = HeaderMap::new();
            let name: HeaderName = name.parse().unwrap();
            headers.insert(&name, HeaderValue::from_static(value));
            rewriter.rewrite(&mut headers);
            assert_eq!(headers[&name], rewritten, "{name}: {value}");
        }
    }
}
