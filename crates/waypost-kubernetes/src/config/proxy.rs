//! The HTTP or SOCKS proxy between this machine and the API server.

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use waypost_core::{ConfigError, Environment, Host};

const HTTPS_PROXY: &str = "HTTPS_PROXY";

/// The proxy that the environment names, and the hosts that are reached without it.
#[derive(Clone, Debug)]
pub(super) struct ProxyRules {
    url: Option<String>,
    no_proxy: String,
}

impl ProxyRules {
    pub(super) fn from_environment(environment: &Environment) -> Self {
        let either = |upper, lower| environment.get(upper).or_else(|| environment.get(lower));
        Self {
            url: either(HTTPS_PROXY, "https_proxy").map(str::to_owned),
            no_proxy: either("NO_PROXY", "no_proxy")
                .unwrap_or_default()
                .to_owned(),
        }
    }

    /// The proxy for requests to `server`, chosen as other Kubernetes clients do: none for loopback
    /// addresses and for the hosts in `NO_PROXY`.
    pub(super) fn proxy_for(&self, server: &Uri) -> Result<Option<Uri>, ConfigError> {
        let Some(url) = &self.url else {
            return Ok(None);
        };
        let host = server.host().and_then(|host| host.parse::<Host>().ok());
        if host.is_some_and(|host| host.is_loopback()) {
            return Ok(None);
        }
        let rules = Matcher::builder()
            .all(url.as_str())
            .no(self.no_proxy.as_str());
        match rules.build().intercept(server) {
            None => Ok(None),
            Some(_) => parse_proxy(HTTPS_PROXY, url).map(Some),
        }
    }
}

/// Parses the URL of a proxy; `place` is the variable or field that it comes from.
pub(super) fn parse_proxy(place: &str, url: &str) -> Result<Uri, ConfigError> {
    let uri: Uri = url.parse().map_err(|cause| {
        let problem = format!("{cause}; use a form such as http://proxy.example:3128");
        ConfigError::new(place, problem)
    })?;
    match uri.scheme_str() {
        Some("http" | "https" | "socks5") => Ok(uri),
        _ => {
            let problem = "the URL must begin with http://, https:// or socks5://";
            Err(ConfigError::new(place, problem))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_is_not_used_for_loopback_and_excluded_hosts() {
        let environment = Environment::from_iter([
            (HTTPS_PROXY, "http://user:secret@proxy:3128"),
            ("NO_PROXY", "10.0.0.0/8,.internal"),
        ]);
        let rules = ProxyRules::from_environment(&environment);
        for (server, is_proxied) in [
            ("https://cluster.example:6443", true),
            ("https://203.0.113.7", true),
            ("https://10.1.2.3:6443", false),
            ("https://api.internal", false),
            ("https://127.0.0.1:6443", false),
            ("https://[::1]:6443", false),
            ("https://localhost:6443", false),
        ] {
            let proxy = rules.proxy_for(&server.parse().unwrap()).unwrap();
            assert_eq!(proxy.is_some(), is_proxied, "{server}");
        }
    }

    #[test]
    fn proxy_without_scheme_is_an_error_that_names_the_variable() {
        let environment = Environment::from_iter([(HTTPS_PROXY, "proxy:3128")]);
        let rules = ProxyRules::from_environment(&environment);
        let error = rules.proxy_for(&"https://a".parse().unwrap()).unwrap_err();
        let error = error.to_string();
        assert!(error.starts_with("HTTPS_PROXY: "), "{error}");
    }
}
