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
