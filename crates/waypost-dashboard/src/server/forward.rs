//! Forwards requests to a registry or a gateway, and their responses as they arrive.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use http::header::{ACCEPT, ACCEPT_ENCODING, CONNECTION, CONTENT_TYPE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderName, StatusCode};

use super::problem::problem;

/// The time limit for connecting. The registry is usually nearby.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// The largest body of a request: the largest value of a key.
const MAX_BODY_BYTES: usize = 1024 * 1024;

const CONSUL_TOKEN: HeaderName = HeaderName::from_static("x-consul-token");
const REQUEST_HEADERS: [HeaderName; 5] = [
    ACCEPT,
    ACCEPT_ENCODING,
    CONTENT_TYPE,
    CONSUL_TOKEN,
    HeaderName::from_static("if-none-match"),
];
/// Headers that concern one connection (RFC 9110, section 7.6.1), or that the server sets itself.
const DROPPED_HEADERS: [HeaderName; 4] = [
    CONNECTION,
    TRANSFER_ENCODING,
    UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// Forwards requests.
pub(super) struct Forward {
    client: reqwest::Client,
}

/// Why there is no response to forward.
#[derive(Debug)]
pub(super) struct ForwardError {
    /// The target, such as `the registry`.
    what: &'static str,
    cause: String,
}

impl Forward {
    pub(super) fn new() -> Result<Self, reqwest::Error> {
        // Fails if the program has chosen a provider already, which is then used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            // The registry is usually nearby, and a proxy could delay events.
            .no_proxy();
        Ok(Self {
            client: client.build()?,
        })
    }

    pub(super) fn client(&self) -> &reqwest::Client {
        &self.client
    }

    /// Sends a request to `url` and returns the response, whose body is passed on as it arrives.
    pub(super) async fn send(
        &self,
        url: &str,
        what: &'static str,
        token: Option<&str>,
        request: Request,
    ) -> Result<Response, ForwardError> {
        let (head, body) = request.into_parts();
        let body = axum::body::to_bytes(body, MAX_BODY_BYTES).await;
        let body = body.map_err(|_| ForwardError {
            what,
            cause: format!("the request is larger than {MAX_BODY_BYTES} bytes"),
        })?;
        let mut outgoing = self.client.request(head.method, url).body(body);
        for name in REQUEST_HEADERS {
            if let Some(value) = head.headers.get(&name) {
                outgoing = outgoing.header(name, value);
            }
        }
        if let Some(token) = token {
            outgoing = outgoing.header(CONSUL_TOKEN, token);
        }
        let incoming = outgoing
            .send()
            .await
            .map_err(|error| ForwardError::new(what, &error))?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = incoming.status();
        *response.headers_mut() = incoming.headers().clone();
        for name in DROPPED_HEADERS {
            response.headers_mut().remove(name);
        }
        *response.body_mut() = Body::from_stream(incoming.bytes_stream());
        Ok(response)
    }

    /// JSON at a URL.
    pub(super) async fn json(
        &self,
        url: &str,
        what: &'static str,
        token: Option<&str>,
    ) -> Result<serde_json::Value, ForwardError> {
        let mut request = self.client.get(url);
        if let Some(token) = token {
            request = request.header(CONSUL_TOKEN, token);
        }
        let response = request
            .send()
            .await
            .and_then(reqwest::Response::error_for_status);
        let body = match response {
            Ok(response) => response.json().await,
            Err(error) => Err(error),
        };
        body.map_err(|error| ForwardError::new(what, &error))
    }
}

impl ForwardError {
    pub(super) fn new(what: &'static str, error: &reqwest::Error) -> Self {
        Self {
            what,
            cause: innermost(error),
        }
    }
}

impl std::fmt::Display for ForwardError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} can't be reached: {}", self.what, self.cause)
    }
}

impl IntoResponse for ForwardError {
    fn into_response(self) -> Response {
        problem(StatusCode::BAD_GATEWAY, "Not reachable", &self.to_string())
    }
}

/// The last cause of an error, such as `Connection refused`. Those before it repeat the URL.
pub(super) fn innermost(error: &reqwest::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    cause.to_string()
}
