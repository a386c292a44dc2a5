//! Redirects that the gateway itself sends.

use http::uri::PathAndQuery;
use http::{HeaderValue, Response, StatusCode, header};

use super::pattern::bare_host;
use crate::response_body::ResponseBody;

/// Redirects all requests of a route. Parts that are `None` are taken from the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Redirect {
    pub(crate) scheme: Option<&'static str>,
    pub(crate) host: Option<String>,
    pub(crate) port: Option<u16>,
    /// The scheme and port of the listener, for redirects that set neither.
    pub(crate) listener: (&'static str, u16),
    pub(crate) status: StatusCode,
}

impl Redirect {
    /// The response. `scheme` and `host` are those that the client has used.
    pub(crate) fn response(
        &self,
        target: &PathAndQuery,
        scheme: &str,
        host: Option<&HeaderValue>,
    ) -> Response<ResponseBody> {
        let mut response = Response::new(ResponseBody::empty());
        *response.status_mut() = self.status;
        let requested = host.and_then(|host| host.to_str().ok()).map(bare_host);
        let location = match self.host.as_deref().or(requested.as_deref()) {
            Some(host) => self.location(target, scheme, host),
            None => target.to_string(),
        };
        if let Ok(location) = HeaderValue::try_from(location) {
            response.headers_mut().insert(header::LOCATION, location);
        }
        response
    }

    fn location(&self, target: &PathAndQuery, requested: &str, host: &str) -> String {
        let scheme = self.scheme.unwrap_or(requested);
        let port = match (self.port, self.scheme, requested) {
            (Some(port), ..) => Some(port),
            // A proxy that terminates TLS in front of the gateway has another port than the listener.
            (None, None, scheme) if scheme == self.listener.0 => Some(self.listener.1),
            _ => None,
        };
        let default = if scheme == "https" { 443 } else { 80 };
        match port.filter(|port| *port != default) {
            Some(port) => format!("{scheme}://{host}:{port}{target}"),
            None => format!("{scheme}://{host}{target}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_redirect_has_a_port_only_if_it_is_not_the_schemes() {
        let redirect = |scheme, port, listener_port| Redirect {
            scheme,
            host: None,
            port,
            listener: ("http", listener_port),
            status: StatusCode::FOUND,
        };
        let host = HeaderValue::from_static("Shop.example:8000");
        for (redirect, scheme, expected) in [
            (redirect(None, None, 80), "http", "http://shop.example/a?b"),
            (
                redirect(None, None, 8080),
                "http",
                "http://shop.example:8080/a?b",
            ),
            (
                redirect(None, None, 80),
                "https",
                "https://shop.example/a?b",
            ),
            (
                redirect(Some("https"), None, 80),
                "http",
                "https://shop.example/a?b",
            ),
            (
                redirect(Some("https"), Some(8443), 80),
                "http",
                "https://shop.example:8443/a?b",
            ),
            (
                redirect(Some("https"), Some(443), 80),
                "http",
                "https://shop.example/a?b",
            ),
        ] {
            let target = PathAndQuery::from_static("/a?b");
            let response = redirect.response(&target, scheme, Some(&host));
            assert_eq!(response.headers()[header::LOCATION], expected);
        }
    }
}
