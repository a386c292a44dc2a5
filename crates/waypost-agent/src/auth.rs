//! Authentication of requests: by the token if there is one, and otherwise by the `Host` and `Origin`
//! headers, which protects against requests from web pages.

use std::net::IpAddr;

use http::header::HeaderName;
use http::{HeaderMap, Uri, header};
use url::Url;

/// Decides whether a request is allowed.
#[derive(Debug)]
pub(crate) struct Auth {
    token: Option<String>,
    /// Host names that are allowed in addition to addresses and local names.
    allowed_hosts: Vec<String>,
}

/// Why a request is rejected. The text is the response body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AuthError {
    /// The token is missing or wrong.
    Token(String),
    /// The host or origin isn't allowed: a web page may have sent the request (DNS rebinding).
    ForeignHost(String),
}

impl Auth {
    pub(crate) fn new(token: Option<String>, allowed_hosts: Vec<String>) -> Self {
        Self {
            // An empty token comes from a variable that is set but empty, which counts as not set.
            token: token.filter(|token| !token.is_empty()),
            allowed_hosts,
        }
    }

    pub(crate) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// The token that every request must have. `None` if none is needed.
    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Checks a request. `query_token` is the `?token` parameter.
    pub(crate) fn check(
        &self,
        uri: &Uri,
        headers: &HeaderMap,
        query_token: &str,
    ) -> Result<(), AuthError> {
        let Some(token) = &self.token else {
            return self.check_host(uri, headers);
        };
        match token_of(headers, query_token) {
            // Consul's name for a request without a token.
            "" | "anonymous" => Err(AuthError::Token("Permission denied".to_owned())),
            given if constant_time_eq(given.as_bytes(), token.as_bytes()) => Ok(()),
            _ => Err(AuthError::Token("ACL not found".to_owned())),
        }
    }

    /// A web page can point its own host name at this agent and then send same-origin requests. The
    /// `Host` header still contains that name. No web page can have a name without a dot, an IP
    /// address, or a name that ends in `.localhost`.
    fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), AuthError> {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let reject = |name: &str, value: &str| {
            Err(AuthError::ForeignHost(format!(
                "{name} {value:?} is not allowed, as protection against DNS rebinding. To allow \
                 it, add it to the allowed hosts of the registry."
            )))
        };
        if let Some(host) = text(header::HOST)
            && !self.allows_host(name_of(host))
        {
            return reject("Host", host);
        }
        if let Some(authority) = uri.authority()
            && !self.allows_host(authority.host())
        {
            return reject("Host", authority.as_str());
        }
        if let Some(origin) = text(header::ORIGIN) {
            let url = Url::parse(origin).ok();
            let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
            if host.is_empty() || !self.allows_host(host) {
                return reject("Origin", origin);
            }
        } else if text(HeaderName::from_static("sec-fetch-site")) == Some("cross-site") {
            // Browsers send no Origin with a simple GET by a page of another site, such as for an image.
            return Err(AuthError::ForeignHost(
                "Requests from other web sites are not allowed (Sec-Fetch-Site: cross-site)."
                    .to_owned(),
            ));
        }
        Ok(())
    }

    fn allows_host(&self, name: &str) -> bool {
        let address = name.trim_start_matches('[').trim_end_matches(']');
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        address.parse::<IpAddr>().is_ok()
            || !name.contains('.')
            || name.ends_with(".localhost")
            || self
                .allowed_hosts
                .iter()
                .any(|host| host.eq_ignore_ascii_case(&name))
    }
}

/// The token of a request, from one of the three places that Consul supports.
fn token_of<'a>(headers: &'a HeaderMap, query_token: &'a str) -> &'a str {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    match query_token {
        "" => header("x-consul-token")
            .or(bearer)
            .unwrap_or_default()
            .trim(),
        token => token,
    }
}

/// Compares in a time that doesn't depend on where the bytes differ.
fn constant_time_eq(a: &[u8], b: &[u8]) -> bool {
    let difference = a.iter().zip(b).fold(0, |all, (a, b)| all | (a ^ b));
    a.len() == b.len() && difference == 0
}

/// A `Host` header without its port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            let name = http::HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        });
        pairs.collect()
    }

    #[test]
    fn only_hosts_that_no_web_page_can_have_are_allowed() {
        let auth = Auth::new(None, vec!["registry.example".to_owned()]);
        for (host, allowed) in [
            ("127.0.0.1:8500", true),
            ("[::1]:8500", true),
            ("localhost:8500", true),
            ("consul", true),
            ("consul.localhost:8500", true),
            ("registry.example:8500", true),
            ("evil.example:8500", false),
            ("127.0.0.1.evil.example", false),
        ] {
            let result = auth.check(&Uri::default(), &headers(&[("host", host)]), "");
            assert_eq!(result.is_ok(), allowed, "{host}");
        }
        for (origin, allowed) in [
            ("http://localhost:3000", true),
            ("http://127.0.0.1:8500", true),
            ("https://evil.example", false),
            ("null", false),
        ] {
            let headers = headers(&[("host", "localhost"), ("origin", origin)]);
            assert_eq!(
                auth.check(&Uri::default(), &headers, "").is_ok(),
                allowed,
                "{origin}"
            );
        }
    }

    #[test]
    fn the_token_is_accepted_in_each_place_that_consul_supports() {
        let auth = Auth::new(Some("secret".to_owned()), Vec::new());
        let missing = Err(AuthError::Token("Permission denied".to_owned()));
        let wrong = Err(AuthError::Token("ACL not found".to_owned()));
        assert_eq!(auth.check(&Uri::default(), &headers(&[]), ""), missing);
        assert_eq!(auth.check(&Uri::default(), &headers(&[]), "nope"), wrong);
        assert_eq!(auth.check(&Uri::default(), &headers(&[]), "secret"), Ok(()));
        let header = headers(&[("x-consul-token", "secret")]);
        assert_eq!(auth.check(&Uri::default(), &header, ""), Ok(()));
        let bearer = headers(&[("authorization", "Bearer secret")]);
        assert_eq!(auth.check(&Uri::default(), &bearer, ""), Ok(()));
    }
}
