//! Hop-by-hop headers, and the headers that the gateway adds.

use std::net::{IpAddr, SocketAddr};

use http::header;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

/// The headers of RFC 9110, section 7.6.1, and the two of section 11.7 that address a proxy.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    // Not a standard header. CGI programs would read it as the variable HTTP_PROXY ("httpoxy").
    HeaderName::from_static("proxy"),
];

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The number of headers that are added to a request; reserved at once.
const ADDED: usize = 8;

/// Identifies a request across all hops.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The id of the instance that sent the response.
pub(crate) const INSTANCE: HeaderName = HeaderName::from_static("x-waypost-instance");

/// Removes the headers that apply to one connection only, including those listed in `Connection`.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            // Removing these would change what the request means to the service.
            .filter(|name| !matches!(*name, header::HOST | header::CONTENT_LENGTH))
            .collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Whether a comma-separated header contains a token, ignoring case.
pub(crate) fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(token))
}

/// The networks of the proxies whose forwarding headers are trusted.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrustedProxies(pub(crate) Vec<IpNet>);

impl TrustedProxies {
    fn contains(&self, peer: IpAddr) -> bool {
        self.0.iter().any(|net| net.contains(&peer.to_canonical()))
    }
}

/// The information about a request that goes into the forwarding headers.
pub(crate) struct ForwardedRequest<'a> {
    pub(crate) peer: SocketAddr,
    /// The authority that the client requested.
    pub(crate) host: Option<&'a str>,
    /// The service name that was removed from the path.
    pub(crate) service: &'a str,
}

/// Adds `Forwarded` (RFC 7239) and the `X-Forwarded-*` headers. Those of a trusted proxy are
/// extended, those of any other client are dropped first.
pub(crate) fn write_forwarded(
    headers: &mut HeaderMap,
    request: &ForwardedRequest<'_>,
    trusted: &TrustedProxies,
) {
    let peer = request.peer.ip().to_canonical();
    if !trusted.contains(peer) {
        let untrusted: Vec<HeaderName> = headers
            .keys()
            .filter(|name| is_forwarding_header(name.as_str()))
            .cloned()
            .collect();
        for name in untrusted {
            headers.remove(name);
        }
    }
    headers.reserve(ADDED);
    append(headers, header::FORWARDED, forwarded(peer, request.host));
    append(headers, X_FORWARDED_FOR, peer.to_string());
    // A trusted proxy has seen the original request, so its values are kept.
    if !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    if let Some(host) = request.host {
        if !headers.contains_key(X_FORWARDED_PORT) {
            set(headers, X_FORWARDED_PORT, port(host).to_owned());
        }
        if !headers.contains_key(X_FORWARDED_HOST) {
            set(headers, X_FORWARDED_HOST, host.to_owned());
        }
    }
    let outer = headers
        .get(X_FORWARDED_PREFIX)
        .and_then(|value| value.to_str().ok());
    let outer = outer.unwrap_or_default().trim_end_matches('/');
    let prefix = format!("{outer}/{}", request.service);
    set(headers, X_FORWARDED_PREFIX, prefix);
}

/// The port of an authority, by default 80.
fn port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // In an IPv6 address without a port, the last colon is inside the brackets.
        Some((_, port)) if !port.ends_with(']') => port,
        _ => "80",
    }
}

/// Matches underscores too, since CGI programs can't tell `X_Forwarded_For` from the real header.
fn is_forwarding_header(name: &str) -> bool {
    let name = name.replace('_', "-");
    name == "forwarded" || name == "x-real-ip" || name.starts_with("x-forwarded-")
}

fn forwarded(peer: IpAddr, host: Option<&str>) -> String {
    let node = match peer {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("\"[{ip}]\""),
    };
    match host {
        // An authority contains no quote or backslash, so nothing needs escaping.
        Some(host) => format!("for={node};host=\"{host}\";proto=http"),
        None => format!("for={node};proto=http"),
    }
}

/// Appends this gateway to `Via` (RFC 9110, section 7.6.3).
pub(crate) fn append_via(headers: &mut HeaderMap, pseudonym: &str) {
    append(headers, header::VIA, format!("1.1 {pseudonym}"));
}

/// Whether `Via` lists this gateway.
pub(crate) fn has_via(headers: &HeaderMap, pseudonym: &str) -> bool {
    headers
        .get_all(header::VIA)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|hop| hop.split_whitespace().nth(1) == Some(pseudonym))
}

/// The request's own `X-Request-Id` if it is safe to log, otherwise a random one.
pub(crate) fn request_id(headers: &HeaderMap) -> HeaderValue {
    let received = headers.get(REQUEST_ID).filter(|id| {
        (1..=128).contains(&id.len())
            && id.as_bytes().iter().all(|byte| {
                byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':')
            })
    });
    match received {
        Some(id) => id.clone(),
        None => value(format!("{:032x}", fastrand::u128(..))),
    }
}

/// Appends an item to a list header, joining its lines into one.
fn append(headers: &mut HeaderMap, name: HeaderName, item: String) {
    if !headers.contains_key(&name) {
        return set(headers, name, item);
    }
    let mut list = String::new();
    for line in headers.get_all(&name) {
        if let Ok(line) = line.to_str() {
            list.push_str(line);
            list.push_str(", ");
        }
    }
    set(headers, name, list + &item);
}

fn set(headers: &mut HeaderMap, name: HeaderName, text: String) {
    headers.insert(name, value(text));
}

/// Callers pass visible ASCII only; anything else becomes an empty value.
fn value(text: String) -> HeaderValue {
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
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

    fn forwarded_headers(lines: &[(&'static str, &'static str)], trusted: &[&str]) -> HeaderMap {
        let mut headers = map(lines);
        let trusted = TrustedProxies(trusted.iter().map(|net| net.parse().unwrap()).collect());
        let peer = "192.0.2.7:4711".parse().unwrap();
        let request = ForwardedRequest {
            peer,
            host: Some("shop.example:8000"),
            service: "auth",
        };
        write_forwarded(&mut headers, &request, &trusted);
        headers
    }

    #[test]
    fn headers_listed_in_connection_are_removed_except_host_and_content_length() {
        let mut headers = map(&[
            ("connection", "close, X-Secret"),
            ("connection", "content-length,host, not a name"),
            ("x-secret", "1"),
            ("content-length", "5"),
            ("host", "a"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("x-kept", "1"),
        ]);
        strip_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "host", "x-kept"]);
    }

    #[test]
    fn forwarding_headers_of_an_untrusted_client_are_dropped() {
        let forged = [
            ("forwarded", "for=1.1.1.1"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x_forwarded_for", "1.1.1.1"),
            ("x-forwarded-prefix", "/admin"),
            ("x-real-ip", "1.1.1.1"),
        ];
        let headers = forwarded_headers(&forged, &["10.0.0.0/8"]);
        assert_eq!(
            headers["forwarded"],
            "for=192.0.2.7;host=\"shop.example:8000\";proto=http"
        );
        assert_eq!(headers["x-forwarded-for"], "192.0.2.7");
        assert_eq!(headers["x-forwarded-host"], "shop.example:8000");
        assert_eq!(headers["x-forwarded-port"], "8000");
        assert_eq!(headers["x-forwarded-prefix"], "/auth");
        assert!(!headers.contains_key("x-real-ip") && !headers.contains_key("x_forwarded_for"));
    }

    #[test]
    fn forwarding_headers_of_a_trusted_proxy_are_extended() {
        let received = [
            ("forwarded", "for=1.1.1.1;proto=https"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-prefix", "/shop/"),
        ];
        let headers = forwarded_headers(&received, &["192.0.2.0/24"]);
        assert_eq!(headers["x-forwarded-for"], "1.1.1.1, 192.0.2.7");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-prefix"], "/shop/auth");
        let forwarded = headers["forwarded"].to_str().unwrap();
        assert!(
            forwarded.starts_with("for=1.1.1.1;proto=https, for=192.0.2.7"),
            "{forwarded}"
        );
    }

    #[test]
    fn a_request_id_that_is_unsafe_to_log_is_replaced() {
        assert_eq!(
            request_id(&map(&[("x-request-id", "a-1.b_2:c")])),
            "a-1.b_2:c"
        );
        for bad in ["", "a b", "a\"b"] {
            assert_eq!(
                request_id(&map(&[("x-request-id", bad)])).len(),
                32,
                "{bad:?}"
            );
        }
    }

    #[test]
    fn a_request_that_passed_this_gateway_before_is_recognised() {
        let mut headers = map(&[("via", "1.0 fred, 1.1 p.example.net (x)")]);
        assert!(!has_via(&headers, "waypost-1"));
        append_via(&mut headers, "waypost-1");
        assert!(has_via(&headers, "waypost-1") && !has_via(&headers, "waypost-2"));
        assert!(headers["via"].to_str().unwrap().starts_with("1.0 fred, "));
    }
}
