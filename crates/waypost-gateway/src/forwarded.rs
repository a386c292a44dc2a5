//! `Forwarded` (RFC 7239) and the `X-Forwarded-*` headers.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use http::header;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

use crate::headers::{append, is_forwarding_header, remove_where};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const X_FORWARDED_PREFIX: HeaderName = HeaderName::from_static("x-forwarded-prefix");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The number of headers that are added to a request, for which space is reserved.
pub(crate) const ADDED: usize = 9;

/// The values of the forwarding headers for a client. Kept per connection, so that most values are
/// created only once.
#[derive(Debug)]
pub(crate) struct Forwarding {
    /// Whether the client is a proxy whose forwarding headers are trusted.
    is_trusted: bool,
    scheme: &'static str,
    peer: IpAddr,
    peer_value: HeaderValue,
    for_host: Mutex<Option<ForHost>>,
}

/// The values for one `Host`.
#[derive(Clone, Debug)]
struct ForHost {
    host: Option<HeaderValue>,
    forwarded: HeaderValue,
    port: Option<HeaderValue>,
}

impl Forwarding {
    /// `scheme` is that of the client's connection.
    pub(crate) fn new(peer: IpAddr, trusted: &[IpNet], scheme: &'static str) -> Self {
        let peer = peer.to_canonical();
        Self {
            is_trusted: trusted.iter().any(|net| net.contains(&peer)),
            scheme,
            peer,
            peer_value: value(&peer.to_string()),
            for_host: Mutex::default(),
        }
    }

    /// Adds the headers. Headers from a trusted proxy are extended; those from any other client are
    /// removed first. `host` is the authority that the client requested, and `prefix` the part of the
    /// path that was removed.
    pub(crate) fn write(
        &self,
        headers: &mut HeaderMap,
        host: Option<&HeaderValue>,
        prefix: Option<&HeaderValue>,
    ) {
        let values = self.for_host(host);
        if self.is_trusted {
            self.extend(headers, values, prefix);
            return;
        }
        remove_where(headers, |name| is_forwarding_header(name.as_str()));
        headers.insert(header::FORWARDED, values.forwarded);
        headers.insert(X_FORWARDED_FOR, self.peer_value.clone());
        headers.insert(X_FORWARDED_PROTO, HeaderValue::from_static(self.scheme));
        if let Some(port) = values.port {
            headers.insert(X_FORWARDED_PORT, port);
        }
        if let Some(host) = values.host {
            headers.insert(X_FORWARDED_HOST, host);
        }
        if let Some(prefix) = prefix {
            headers.insert(X_FORWARDED_PREFIX, prefix.clone());
        }
    }

    /// The scheme and authority that the client uses for the gateway, as far as they are known.
    pub(crate) fn public_address(
        &self,
        headers: &HeaderMap,
        host: Option<&HeaderValue>,
    ) -> Option<HeaderValue> {
        let named = self.named(headers, X_FORWARDED_HOST);
        named.or(host).cloned()
    }

    /// The scheme of the client's connection.
    #[cfg(feature = "otlp")]
    pub(crate) fn scheme(&self) -> &'static str {
        self.scheme
    }

    /// The client's address, if a trusted proxy names it.
    #[cfg(feature = "otlp")]
    pub(crate) fn named_client<'a>(&self, headers: &'a HeaderMap) -> Option<&'a str> {
        let list = self.named(headers, X_FORWARDED_FOR)?;
        let first = list.to_str().ok()?.split(',').next()?.trim();
        (!first.is_empty()).then_some(first)
    }

    /// The value that a trusted proxy has set.
    fn named<'a>(&self, headers: &'a HeaderMap, name: HeaderName) -> Option<&'a HeaderValue> {
        if self.is_trusted {
            headers.get(name)
        } else {
            None
        }
    }

    /// The scheme that the client uses, as far as it is known.
    pub(crate) fn public_scheme<'a>(&self, headers: &'a HeaderMap) -> &'a str {
        let named = self.named(headers, X_FORWARDED_PROTO);
        let named = named.and_then(|scheme| scheme.to_str().ok());
        match named {
            Some(scheme) if scheme.eq_ignore_ascii_case("https") => "https",
            Some(scheme) if scheme.eq_ignore_ascii_case("http") => "http",
            _ => self.scheme,
        }
    }

    /// A trusted proxy has seen the original request, so its values are kept. Missing values are derived
    /// from the values that it has set, not from the connection between it and the gateway.
    fn extend(&self, headers: &mut HeaderMap, values: ForHost, prefix: Option<&HeaderValue>) {
        append(headers, header::FORWARDED, &values.forwarded);
        append(headers, X_FORWARDED_FOR, &self.peer_value);
        let scheme = match headers.get(X_FORWARDED_PROTO) {
            Some(scheme) => scheme.clone(),
            None => HeaderValue::from_static(self.scheme),
        };
        if !headers.contains_key(X_FORWARDED_PORT) {
            let named = headers.get(X_FORWARDED_HOST).or(values.host.as_ref());
            let named = named.and_then(|host| host.to_str().ok());
            let port = named.and_then(|host| port(host, scheme.to_str().ok()?));
            if let Some(port) = port {
                headers.insert(X_FORWARDED_PORT, value(port));
            }
        }
        headers.insert(X_FORWARDED_PROTO, scheme);
        if let Some(host) = values.host
            && !headers.contains_key(X_FORWARDED_HOST)
        {
            headers.insert(X_FORWARDED_HOST, host);
        }
        if let Some(prefix) = prefix {
            let outer = headers.get(X_FORWARDED_PREFIX);
            let outer = outer.and_then(|outer| outer.to_str().ok()).unwrap_or("");
            let whole = [outer.trim_end_matches('/').as_bytes(), prefix.as_bytes()].concat();
            if let Ok(whole) = HeaderValue::from_bytes(&whole) {
                headers.insert(X_FORWARDED_PREFIX, whole);
            }
        }
    }

    fn for_host(&self, host: Option<&HeaderValue>) -> ForHost {
        let mut cached = self.for_host.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(values) = &*cached
            && values.host.as_ref() == host
        {
            return values.clone();
        }
        let name = host.and_then(|host| host.to_str().ok());
        let values = ForHost {
            host: host.cloned(),
            forwarded: value(&self.forwarded(name)),
            port: name.and_then(|name| port(name, self.scheme)).map(value),
        };
        cached.insert(values).clone()
    }

    fn forwarded(&self, host: Option<&str>) -> String {
        let node = match self.peer {
            IpAddr::V4(ip) => ip.to_string(),
            IpAddr::V6(ip) => format!("\"[{ip}]\""),
        };
        let scheme = self.scheme;
        match host {
            // A valid authority contains no quote or backslash, so nothing needs escaping.
            Some(host) => format!("for={node};host=\"{host}\";proto={scheme}"),
            None => format!("for={node};proto={scheme}"),
        }
    }
}

/// The port of an authority, by default that of the scheme.
fn port<'a>(authority: &'a str, scheme: &str) -> Option<&'a str> {
    match authority.rsplit_once(':') {
        // In an IPv6 address without a port, the last colon is inside the brackets.
        Some((_, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
            Some(port)
        }
        _ => match scheme {
            "http" => Some("80"),
            "https" => Some("443"),
            _ => None,
        },
    }
}

/// Callers pass visible ASCII only; anything else becomes an empty value.
fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded_headers(
        lines: &[(&'static str, &'static str)],
        trusted: &str,
        host: &'static str,
    ) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        let peer = "192.0.2.7".parse().unwrap();
        let forwarding = Forwarding::new(peer, &[trusted.parse().unwrap()], "http");
        let (host, prefix) = (HeaderValue::from_static(host), "/auth");
        let prefix = HeaderValue::from_static(prefix);
        forwarding.write(&mut headers, Some(&host), Some(&prefix));
        headers
    }

    #[test]
    fn forwarding_headers_of_an_untrusted_client_are_dropped() {
        let forged = [
            ("forwarded", "for=1.1.1.1"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("x_forwarded_for", "1.1.1.1"),
            ("x-forwarded-prefix", "/admin"),
            ("x-forwarded-user", "root"),
            ("x-real-ip", "1.1.1.1"),
        ];
        let headers = forwarded_headers(&forged, "10.0.0.0/8", "shop.example:8000");
        assert_eq!(
            headers["forwarded"],
            "for=192.0.2.7;host=\"shop.example:8000\";proto=http"
        );
        for (name, value) in [
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-host", "shop.example:8000"),
            ("x-forwarded-port", "8000"),
            ("x-forwarded-proto", "http"),
            ("x-forwarded-prefix", "/auth"),
        ] {
            assert_eq!(headers[name], value, "{name}");
        }
        for name in ["x-real-ip", "x_forwarded_for", "x-forwarded-user"] {
            assert!(!headers.contains_key(name), "{name}");
        }
        assert_eq!(headers.get_all("x-forwarded-for").iter().count(), 1);
    }

    #[test]
    fn forwarding_headers_of_a_trusted_proxy_are_extended() {
        let received = [
            ("forwarded", "for=1.1.1.1;proto=https"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-prefix", "/shop/"),
        ];
        let headers = forwarded_headers(&received, "192.0.2.0/24", "shop.example");
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
    #[cfg(feature = "otlp")]
    fn the_client_is_the_first_address_that_a_trusted_proxy_names() {
        for (trusted, list, expected) in [
            ("192.0.2.0/24", Some("1.1.1.1"), Some("1.1.1.1")),
            ("192.0.2.0/24", Some(" 1.1.1.1 , 2.2.2.2"), Some("1.1.1.1")),
            ("192.0.2.0/24", Some(", 2.2.2.2"), None),
            ("192.0.2.0/24", None, None),
            ("10.0.0.0/8", Some("1.1.1.1"), None),
        ] {
            let peer = "192.0.2.7".parse().unwrap();
            let forwarding = Forwarding::new(peer, &[trusted.parse().unwrap()], "http");
            let named = list.map(|list| (X_FORWARDED_FOR, HeaderValue::from_static(list)));
            let headers = HeaderMap::from_iter(named);
            assert_eq!(forwarding.named_client(&headers), expected, "{list:?}");
        }
    }

    #[test]
    fn the_port_belongs_to_the_connection_that_a_trusted_proxy_describes() {
        for (received, host, port) in [
            (
                &[("x-forwarded-proto", "https")][..],
                "shop.example",
                Some("443"),
            ),
            (
                &[("x-forwarded-proto", "https")],
                "shop.example:8443",
                Some("8443"),
            ),
            (
                &[("x-forwarded-host", "a.example:99")],
                "gw:8000",
                Some("99"),
            ),
            (&[("x-forwarded-port", "7")], "gw:8000", Some("7")),
            (&[("x-forwarded-proto", "wss")], "shop.example", None),
            (&[], "shop.example", Some("80")),
            (&[], "[::1]", Some("80")),
        ] {
            let headers = forwarded_headers(received, "192.0.2.0/24", host);
            let found = headers.get("x-forwarded-port");
            assert_eq!(
                found.map(|found| found.to_str().unwrap()),
                port,
                "{received:?}"
            );
        }
    }
}
