//! Cross-origin resource sharing (the Fetch standard, "CORS protocol").

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};

use crate::headers::append;

/// Determines which web pages may call a route's service.
#[derive(Clone, Debug)]
pub(crate) struct Cors {
    /// Origins such as `https://shop.example`; `None` allows all.
    pub(crate) origins: Option<Vec<String>>,
    /// `None` allows those that the page asks for.
    pub(crate) methods: Option<HeaderValue>,
    /// `None` allows those that the page asks for.
    pub(crate) headers: Option<HeaderValue>,
    /// Response headers that pages may read.
    pub(crate) expose: Option<HeaderValue>,
    /// Whether browsers send cookies.
    pub(crate) credentials: bool,
    /// How long a browser may cache the response to a preflight.
    pub(crate) max_age: Duration,
}

impl Cors {
    /// The response to a preflight; `None` for any other request.
    pub(crate) fn preflight(
        &self,
        method: &Method,
        headers: &HeaderMap,
    ) -> Option<Response<Bytes>> {
        if *method != Method::OPTIONS {
            return None;
        }
        let asked = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
        let origin = headers.get(header::ORIGIN)?.to_str().ok()?;
        let mut response = Response::new(Bytes::new());
        if !self.allows(origin) {
            *response.status_mut() = StatusCode::FORBIDDEN;
            return Some(response);
        }
        *response.status_mut() = StatusCode::NO_CONTENT;
        // `allow` adds the header for the origin, as to all responses.
        let answer = response.headers_mut();
        let methods = self.methods.as_ref().unwrap_or(asked);
        answer.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods.clone());
        let asked = headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
        if let Some(allowed) = self.headers.as_ref().or(asked) {
            answer.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed.clone());
        }
        let max_age = HeaderValue::from(self.max_age.as_secs());
        answer.insert(header::ACCESS_CONTROL_MAX_AGE, max_age);
        Some(response)
    }

    /// Adds the headers that let a page of `origin` read a response, if that is allowed.
    pub(crate) fn allow(&self, origin: &str, headers: &mut HeaderMap) {
        append(headers, header::VARY, &HeaderValue::from_static("origin"));
        // The route takes precedence over what the service has set.
        headers.remove(header::ACCESS_CONTROL_ALLOW_ORIGIN);
        headers.remove(header::ACCESS_CONTROL_ALLOW_CREDENTIALS);
        let Ok(value) = HeaderValue::from_str(origin) else {
            return;
        };
        if !self.allows(origin) {
            return;
        }
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, value);
        if self.credentials {
            let yes = HeaderValue::from_static("true");
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, yes);
        }
        if let Some(expose) = &self.expose {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, expose.clone());
        }
    }

    fn allows(&self, origin: &str) -> bool {
        match &self.origins {
            None => true,
            Some(origins) => origins.iter().any(|allowed| allowed == origin),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: Option<&str>) -> Cors {
        Cors {
            origins: origins.map(|origin| vec![origin.to_owned()]),
            methods: None,
            headers: None,
            expose: None,
            credentials: false,
            max_age: Duration::from_secs(60),
        }
    }

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (
                http::HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        lines.iter().map(line).collect()
    }

    const ASKED: [(&str, &str); 3] = [
        ("origin", "https://a"),
        ("access-control-request-method", "PUT"),
        ("access-control-request-headers", "x-a, x-b"),
    ];

    #[test]
    fn only_an_options_request_of_a_page_that_asks_is_a_preflight() {
        let cors = cors(None);
        assert!(cors.preflight(&Method::OPTIONS, &map(&ASKED)).is_some());
        assert!(cors.preflight(&Method::GET, &map(&ASKED)).is_none());
        assert!(
            cors.preflight(&Method::OPTIONS, &map(&ASKED[..1]))
                .is_none()
        );
        assert!(
            cors.preflight(&Method::OPTIONS, &map(&ASKED[1..]))
                .is_none()
        );
    }

    #[test]
    fn a_preflight_is_answered_with_what_is_configured_or_was_asked_for() {
        let mut all = cors(None);
        let response = all.preflight(&Method::OPTIONS, &map(&ASKED)).unwrap();
        assert_eq!(response.status(), StatusCode::NO_CONTENT);
        let expected = map(&[
            ("access-control-allow-methods", "PUT"),
            ("access-control-allow-headers", "x-a, x-b"),
            ("access-control-max-age", "60"),
        ]);
        assert_eq!(response.headers(), &expected);
        all.methods = Some(HeaderValue::from_static("GET"));
        all.headers = Some(HeaderValue::from_static("x-c"));
        let response = all.preflight(&Method::OPTIONS, &map(&ASKED)).unwrap();
        let expected = map(&[
            ("access-control-allow-methods", "GET"),
            ("access-control-allow-headers", "x-c"),
            ("access-control-max-age", "60"),
        ]);
        assert_eq!(response.headers(), &expected);
        let other = cors(Some("https://b"));
        let response = other.preflight(&Method::OPTIONS, &map(&ASKED)).unwrap();
        assert_eq!(response.status(), StatusCode::FORBIDDEN);
        assert!(response.headers().is_empty());
    }

    #[test]
    fn the_route_and_not_the_service_says_who_may_read_a_response() {
        let of_service = [
            ("access-control-allow-origin", "*"),
            ("access-control-allow-credentials", "true"),
            ("vary", "cookie"),
        ];
        let mut headers = map(&of_service);
        cors(Some("https://b")).allow("https://a", &mut headers);
        assert_eq!(headers, map(&[("vary", "cookie, origin")]));
        let mut headers = map(&of_service);
        cors(Some("https://a")).allow("https://a", &mut headers);
        let mut expected = map(&[
            ("vary", "cookie, origin"),
            ("access-control-allow-origin", "https://a"),
        ]);
        assert_eq!(headers, expected);
        let mut with_credentials = cors(Some("https://a"));
        with_credentials.credentials = true;
        with_credentials.expose = Some(HeaderValue::from_static("x-total"));
        let mut headers = map(&of_service);
        with_credentials.allow("https://a", &mut headers);
        expected.extend(map(&[
            ("access-control-allow-credentials", "true"),
            ("access-control-expose-headers", "x-total"),
        ]));
        assert_eq!(headers, expected);
    }
}
