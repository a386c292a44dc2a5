//! Which headers end at the gateway, and which it writes itself.

use std::net::{IpAddr, SocketAddr};

use http::header;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

/// RFC 9110, section 7.6.1, and the two of section 11.7 that are meant for a proxy itself.
const HOP_BY_HOP: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    // Never sent by a browser; a CGI program takes it for a setting ("httpoxy").
    HeaderName::from_static("proxy"),
];

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// How many headers a request gets on its way, so that their map grows once.
const ADDED: usize = 8;

/// Names a request from end to end.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Says which instance answered.
pub(crate) const INSTANCE: HeaderName = HeaderName::from_static("x-waypost-instance");

/// Removes what is meant for this connection only, including what `Connection` names.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            // Whoever names these wants to blind the service, not to describe the connection.
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

/// Whether a comma-separated header has a word among its values.
pub(crate) fn lists(headers: &HeaderMap, name: &HeaderName, word: &str) -> bool {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|item| item.trim().eq_ignore_ascii_case(word))
}

/// Whose word on where a request came from is believed: the proxies in front of the gateway.
#[derive(Clone, Debug, Default)]
pub(crate) struct TrustedProxies(pub(crate) Vec<IpNet>);

impl TrustedProxies {
    fn contain(&self, peer: IpAddr) -> bool {
        self.0.iter().any(|net| net.contains(&peer.to_canonical()))
    }
}

/// How a request reached the gateway.
pub(crate) struct Arrival<'a> {
    pub(crate) peer: SocketAddr,
    /// The authority that the client asked for.
    pub(crate) host: Option<&'a str>,
    /// The service whose name was taken off the path.
    pub(crate) service: &'a str,
}

/// Writes `Forwarded` (RFC 7239) and its older kin. What a proxy that is trusted has written is
/// continued, what anybody else has written is dropped.
pub(crate) fn write_forwarded(
    headers: &mut HeaderMap,
    arrival: &Arrival<'_>,
    trusted: &TrustedProxies,
) {
    let peer = arrival.peer.ip().to_canonical();
    if !trusted.contain(peer) {
        let claims: Vec<HeaderName> = headers
            .keys()
            .filter(|name| claims_origin(name.as_str()))
            .cloned()
            .collect();
        for name in claims {
            headers.remove(name);
        }
    }
    headers.reserve(ADDED);
    append(headers, header::FORWARDED, forwarded(peer, arrival.host));
    append(headers, X_FORWARDED_FOR, peer.to_string());
    // A trusted proxy knows better than we what the client asked it for.
    if !headers.contains_key(X_FORWARDED_PROTO) {
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    if let Some(host) = arrival.host {
        if !headers.contains_key(X_FORWARDED_PORT) {
            set(headers, X_FORWARDED_PORT, port(host).to_owned());
        }
        if !headers.contains_key(X_FORWARDED_HOST) {
            set(headers, X_FORWARDED_HOST, host.to_owned());
        }
    }
    let before = headers
        .get(X_FORWARDED_PREFIX)
        .and_then(|value| value.to_str().ok());
    let before = before.unwrap_or_default().trim_end_matches('/');
    let prefix = format!("{before}/{}", arrival.service);
    set(headers, X_FORWARDED_PREFIX, prefix);
}

/// The port of an authority; without one it is HTTP's.
fn port(host: &str) -> &str {
    match host.rsplit_once(':') {
        // The last colon of a bare IPv6 address is inside of its brackets.
        Some((_, port)) if !port.ends_with(']') => port,
        _ => "80",
    }
}

/// The older names, also as a CGI program would confuse them (`X_Forwarded_For`).
fn claims_origin(name: &str) -> bool {
    let name = name.replace('_', "-");
    name == "forwarded" || name == "x-real-ip" || name.starts_with("x-forwarded-")
}

fn forwarded(peer: IpAddr, host: Option<&str>) -> String {
    let node = match peer {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("\"[{ip}]\""),
    };
    match host {
        // An authority has no quote or backslash in it, so it needs no escape.
        Some(host) => format!("for={node};host=\"{host}\";proto=http"),
        None => format!("for={node};proto=http"),
    }
}

/// Adds ourselves to the way that a message has come (RFC 9110, section 7.6.3).
pub(crate) fn write_via(headers: &mut HeaderMap, pseudonym: &str) {
    append(headers, header::VIA, format!("1.1 {pseudonym}"));
}

/// Whether a message has come through us before.
pub(crate) fn came_via(headers: &HeaderMap, pseudonym: &str) -> bool {
    headers
        .get_all(header::VIA)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|hop| hop.split_whitespace().nth(1) == Some(pseudonym))
}

/// The request's id: the one it brought, if it can stand in a log, or a new one.
pub(crate) fn request_id(headers: &HeaderMap) -> HeaderValue {
    let brought = headers.get(REQUEST_ID).filter(|id| {
        (1..=128).contains(&id.len())
            && id.as_bytes().iter().all(|byte| {
                byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':')
            })
    });
    match brought {
        Some(id) => id.clone(),
        None => value(format!("{:032x}", fastrand::u128(..))),
    }
}

/// Adds an item to a list; all of it becomes one line.
fn append(headers: &mut HeaderMap, name: HeaderName, item: String) {
    if !headers.contains_key(&name) {
        return set(headers, name, item);
    }
    let mut list = String::new();
    for earlier in headers.get_all(&name) {
        if let Ok(earlier) = earlier.to_str() {
            list.push_str(earlier);
            list.push_str(", ");
        }
    }
    set(headers, name, list + &item);
}

fn set(headers: &mut HeaderMap, name: HeaderName, text: String) {
    headers.insert(name, value(text));
}

/// What we write is visible ASCII; anything else would be ours to mend, and is left out.
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

    fn arrive(lines: &[(&'static str, &'static str)], trusted: &[&str]) -> HeaderMap {
        let mut headers = map(lines);
        let trusted = TrustedProxies(trusted.iter().map(|net| net.parse().unwrap()).collect());
        let peer = "192.0.2.7:4711".parse().unwrap();
        let arrival = Arrival {
            peer,
            host: Some("shop.example:8000"),
            service: "auth",
        };
        write_forwarded(&mut headers, &arrival, &trusted);
        headers
    }

    #[test]
    fn what_connection_names_goes_with_it_but_never_the_framing() {
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
    fn a_strangers_word_on_its_origin_is_dropped() {
        let lies = [
            ("forwarded", "for=1.1.1.1"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x_forwarded_for", "1.1.1.1"),
            ("x-forwarded-prefix", "/admin"),
            ("x-real-ip", "1.1.1.1"),
        ];
        let headers = arrive(&lies, &["10.0.0.0/8"]);
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
    fn a_trusted_proxys_word_is_continued() {
        let word = [
            ("forwarded", "for=1.1.1.1;proto=https"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-prefix", "/shop/"),
        ];
        let headers = arrive(&word, &["192.0.2.0/24"]);
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
    fn an_id_that_could_not_stand_in_a_log_is_replaced() {
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
    fn the_way_back_to_ourselves_is_noticed() {
        let mut headers = map(&[("via", "1.0 fred, 1.1 p.example.net (x)")]);
        assert!(!came_via(&headers, "waypost-1"));
        write_via(&mut headers, "waypost-1");
        assert!(came_via(&headers, "waypost-1") && !came_via(&headers, "waypost-2"));
        assert!(headers["via"].to_str().unwrap().starts_with("1.0 fred, "));
    }
}
