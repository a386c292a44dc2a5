//! Who may ask: holders of the token, if there is one, and nobody who was lured here by a web page.

use std::net::IpAddr;

use http::header::{self, HeaderMap};
use url::Url;

/// The rules for requests.
#[derive(Debug)]
pub(crate) struct Guard {
    token: Option<String>,
    /// The names under which the agent may be called beside addresses and local names.
    hosts: Vec<String>,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Denied {
    /// It has no token, or the wrong one.
    Token(String),
    /// A browser may have been tricked into sending it: DNS rebinding.
    Elsewhere(String),
}

impl Guard {
    pub(crate) fn new(token: Option<String>, hosts: Vec<String>) -> Self {
        Self { token, hosts }
    }

    pub(crate) fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// The token that every request must have, if one must.
    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Lets a request pass, or tells why not. `in_query` is `?token`.
    pub(crate) fn check(&self, headers: &HeaderMap, in_query: &str) -> Result<(), Denied> {
        let Some(token) = &self.token else {
            return self.check_host(headers);
        };
        match token_of(headers, in_query) {
            // Consul's name for whoever has none.
            "" | "anonymous" => Err(Denied::Token("Permission denied".to_owned())),
            given if is_same(given.as_bytes(), token.as_bytes()) => Ok(()),
            _ => Err(Denied::Token("ACL not found".to_owned())),
        }
    }

    /// A page from elsewhere can make its own name lead here, and then ask as if it were local; but
    /// the browser still says which name it believes it is talking to. No page can have a name
    /// without a dot, one that is an address, or one that ends in `.localhost`.
    fn check_host(&self, headers: &HeaderMap) -> Result<(), Denied> {
        let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
        let refuse = |name: &str, value: &str| {
            Err(Denied::Elsewhere(format!(
                "{name}: {value:?} isn't a name of this registry. If it should be, allow it when \
                 the registry is started; this guards against DNS rebinding."
            )))
        };
        if let Some(host) = text(header::HOST)
            && !self.knows(name_of(host))
        {
            return refuse("Host", host);
        }
        if let Some(origin) = text(header::ORIGIN) {
            let url = Url::parse(origin).ok();
            let host = url.as_ref().and_then(Url::host_str).unwrap_or_default();
            if host.is_empty() || !self.knows(host) {
                return refuse("Origin", origin);
            }
        }
        Ok(())
    }

    fn knows(&self, name: &str) -> bool {
        let address = name.trim_start_matches('[').trim_end_matches(']');
        let name = name.trim_end_matches('.').to_ascii_lowercase();
        address.parse::<IpAddr>().is_ok()
            || !name.contains('.')
            || name.ends_with(".localhost")
            || self
                .hosts
                .iter()
                .any(|host| host.eq_ignore_ascii_case(&name))
    }
}

/// The token in one of the three places where Consul looks for it.
fn token_of<'a>(headers: &'a HeaderMap, in_query: &'a str) -> &'a str {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let bearer = header("authorization").and_then(|value| value.strip_prefix("Bearer "));
    match in_query {
        "" => header("x-consul-token")
            .or(bearer)
            .unwrap_or_default()
            .trim(),
        token => token,
    }
}

/// Compares without telling by its time how much was right.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let differing = one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b));
    one.len() == other.len() && differing == 0
}

/// A `Host` without its port.
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
    fn only_names_that_no_web_page_can_have_are_known() {
        let guard = Guard::new(None, vec!["registry.example".to_owned()]);
        for (host, known) in [
            ("127.0.0.1:8500", true),
            ("[::1]:8500", true),
            ("localhost:8500", true),
            ("consul", true),
            ("consul.localhost:8500", true),
            ("registry.example:8500", true),
            ("evil.example:8500", false),
            ("127.0.0.1.evil.example", false),
        ] {
            let allowed = guard.check(&headers(&[("host", host)]), "");
            assert_eq!(allowed.is_ok(), known, "{host}");
        }
        for (origin, known) in [
            ("http://localhost:3000", true),
            ("http://127.0.0.1:8500", true),
            ("https://evil.example", false),
            ("null", false),
        ] {
            let headers = headers(&[("host", "localhost"), ("origin", origin)]);
            assert_eq!(guard.check(&headers, "").is_ok(), known, "{origin}");
        }
    }

    #[test]
    fn the_token_is_taken_from_where_consul_takes_it() {
        let guard = Guard::new(Some("secret".to_owned()), Vec::new());
        let none = Err(Denied::Token("Permission denied".to_owned()));
        let wrong = Err(Denied::Token("ACL not found".to_owned()));
        assert_eq!(guard.check(&headers(&[]), ""), none);
        assert_eq!(guard.check(&headers(&[]), "nope"), wrong);
        assert_eq!(guard.check(&headers(&[]), "secret"), Ok(()));
        let named = headers(&[("x-consul-token", "secret")]);
        assert_eq!(guard.check(&named, ""), Ok(()));
        let bearer = headers(&[("authorization", "Bearer secret")]);
        assert_eq!(guard.check(&bearer, ""), Ok(()));
    }
}
