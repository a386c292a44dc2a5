//! `/api/…`: proxies the API of the models through the gateway.
//!
//! The browser doesn't call the gateway itself, for three reasons. The gateway registers an address
//! for other services, which the browser may not be able to reach; it can reach the UI, since it
//! loaded the page from there. With a single origin, gateway and models need no CORS headers, and
//! the content security policy can forbid requests to other origins. And the UI is an example of a
//! service that calls another one by name. The cost is one more hop.
//!
//! Only the API of the models is proxied, not the other routes of the gateway.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use futures_util::TryStreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use waypost::{Balancer, InstanceId, ServiceName};

use crate::problem::Problem;

/// The largest request body, in bytes. The body is buffered, so that a request can be retried.
const MAX_BODY: usize = 1024 * 1024;

/// How often a request is sent before giving up.
const MAX_ATTEMPTS: usize = 3;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// The instance of the gateway that handled the request.
const GATEWAY: HeaderName = HeaderName::from_static("x-gateway");
const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The request headers that are forwarded.
const REQUEST_HEADERS: [HeaderName; 4] = [
    header::ACCEPT,
    header::CONTENT_TYPE,
    REQUEST_ID,
    TRACEPARENT,
];

/// The response headers that are forwarded.
const RESPONSE_HEADERS: [HeaderName; 7] = [
    header::ALLOW,
    header::CACHE_CONTROL,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::RETRY_AFTER,
    REQUEST_ID,
    SERVED_BY,
];

/// Forwards requests to the gateway.
pub(crate) struct Proxy {
    gateways: Balancer,
    /// The path of the models' API at the gateway, such as `/ai-models/api/`.
    prefix: String,
    http: reqwest::Client,
}

impl Proxy {
    pub(crate) fn new(gateways: Balancer, models: &ServiceName) -> Result<Self, reqwest::Error> {
        // This fails only if the process has a crypto provider already; that one is used then.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            // The addresses come from the registry. The proxy in the environment is meant for other
            // addresses and may not reach them.
            .no_proxy()
            .build()?;
        Ok(Self {
            gateways,
            prefix: format!("/{models}/api/"),
            http,
        })
    }

    /// Sends a request to an instance of the gateway, and to other instances if it can't connect.
    async fn forward(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response, Problem> {
        self.gateways
            .ready()
            .await
            .map_err(|error| Problem::no_gateway(&error))?;
        let mut failed: Vec<InstanceId> = Vec::new();
        let mut addresses = Vec::new();
        loop {
            let (lease, url) = {
                let pick = self
                    .gateways
                    .pick_except(&failed)
                    .map_err(|error| Problem::no_gateway(&error))?;
                let url = reqwest::Url::parse(&pick.url_for(&format!("{}{path}", self.prefix)));
                (pick.lease(), url.map_err(|_| Problem::no_such_path(path))?)
            };
            // Parsing has resolved all dot segments, also percent-encoded ones, so this rejects
            // paths that lead out of the API.
            let allowed = format!("{}{}", lease.path_prefix(), self.prefix);
            if !url.path().starts_with(&allowed) {
                return Err(Problem::no_such_path(url.path()));
            }
            let request = self
                .http
                .request(method.clone(), url)
                .headers(headers.clone())
                .body(body.clone());
            addresses.push(lease.authority());
            let error = match request.send().await {
                Ok(response) => {
                    // An error status comes from the models; the gateway itself has worked.
                    lease.succeeded();
                    return Ok(forward_response(response, lease));
                }
                Err(error) => error,
            };
            lease.failed();
            // Without a connection nothing has been sent, so a retry is safe.
            let can_retry = error.is_connect()
                && addresses.len() < MAX_ATTEMPTS
                && !failed.contains(lease.id());
            if !can_retry {
                let cause = root_cause(&error);
                return Err(Problem::gateway_unreachable(&addresses, &cause));
            }
            tracing::warn!(gateway = %lease.authority(), %error, "gateway unreachable, trying another instance");
            failed.push(lease.id().clone());
        }
    }
}

/// Handles `/api/…` for all methods.
pub(crate) async fn proxy(
    State(proxy): State<Arc<Proxy>>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
    let path = path
        .strip_prefix("/api/")
        .ok_or_else(|| Problem::no_such_path(path))?;
    let headers = select(&parts.headers, &REQUEST_HEADERS);
    let body = axum::body::to_bytes(body, MAX_BODY)
        .await
        .map_err(|_| Problem::body_too_large(MAX_BODY))?;
    proxy.forward(parts.method, path, headers, body).await
}

/// The response to the browser, with the gateway's body as a stream.
fn forward_response(upstream: reqwest::Response, lease: waypost::Lease) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = upstream.status();
    *response.headers_mut() = select(upstream.headers(), &RESPONSE_HEADERS);
    if let Ok(gateway) = HeaderValue::try_from(lease.authority()) {
        response.headers_mut().insert(GATEWAY, gateway);
    }
    // The stream owns the lease, so the request counts as in flight until the body ends.
    let chunks = upstream.bytes_stream().inspect_ok(move |_| _ = &lease);
    *response.body_mut() = Body::from_stream(chunks);
    response
}

/// The headers with these names.
fn select(headers: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    let found = names
        .iter()
        .filter_map(|name| Some((name.clone(), headers.get(name)?.clone())));
    found.collect()
}

/// The innermost cause, such as "Connection refused" instead of "error sending request".
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
