//! `/api/…`: the models' API, called through the gateway.
//!
//! The page could be given the gateway's URL and call it itself. It isn't, for three reasons. The
//! address under which a gateway registers is one for other services: a browser on another
//! machine, or behind a tunnel, may not reach it, but it does reach the UI, since that is where
//! the page came from. Everything stays of one origin, so that neither the gateway nor the models
//! need to allow foreign pages (CORS), and the page may be forbidden to talk to anyone else. And
//! the UI is itself an example of a service that finds another by name. The price is one more hop,
//! of bytes that are passed on as they come.
//!
//! Only the API of the models can be reached this way, not all that the gateway knows.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use futures_util::TryStreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use waypost::{Balancer, InstanceId, ServiceName};

use crate::problem::Problem;

/// The largest request body, in bytes. It is kept until the gateway has taken it, so that another
/// instance of the gateway can be tried.
const MAX_BODY: usize = 1024 * 1024;

/// How many instances of the gateway are tried before giving up.
const MAX_TRIES: usize = 3;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// Which instance of the gateway an answer came through.
const GATEWAY: HeaderName = HeaderName::from_static("x-gateway");
const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACE: HeaderName = HeaderName::from_static("traceparent");

/// What of a request concerns the models.
const REQUEST_HEADERS: [HeaderName; 4] = [header::ACCEPT, header::CONTENT_TYPE, REQUEST_ID, TRACE];

/// What of an answer concerns the page.
const RESPONSE_HEADERS: [HeaderName; 7] = [
    header::ALLOW,
    header::CACHE_CONTROL,
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::RETRY_AFTER,
    REQUEST_ID,
    SERVED_BY,
];

/// Passes requests on to the gateway.
pub(crate) struct Proxy {
    gateways: Balancer,
    /// The path of the models' API at the gateway, such as `/ai-models/api/`.
    prefix: String,
    http: reqwest::Client,
}

impl Proxy {
    pub(crate) fn new(gateways: Balancer, models: &ServiceName) -> Result<Self, reqwest::Error> {
        // Refused only if another part of the program chose a provider before: then that one serves.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        Ok(Self {
            gateways,
            prefix: format!("/{models}/api/"),
            http,
        })
    }

    /// Sends a request to one instance of the gateway after the other, until one takes it.
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
        let mut tried: Vec<InstanceId> = Vec::new();
        let mut addresses = Vec::new();
        loop {
            let (lease, url) = {
                let pick = self
                    .gateways
                    .pick_except(&tried)
                    .map_err(|error| Problem::no_gateway(&error))?;
                let url = reqwest::Url::parse(&pick.url_for(&format!("{}{path}", self.prefix)));
                (pick.lease(), url.map_err(|_| Problem::no_such_path(path))?)
            };
            // Parsing resolved all dots, be they encoded or not: none may lead out of the API.
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
                    // An error status is about the models behind; the gateway itself did its work.
                    lease.succeeded();
                    return Ok(answer(response, lease));
                }
                Err(error) => error,
            };
            lease.failed();
            // Without a connection nothing was sent, so that another try can do no harm.
            let again =
                error.is_connect() && addresses.len() < MAX_TRIES && !tried.contains(lease.id());
            if !again {
                return Err(Problem::gateway_silent(&addresses, &root_cause(&error)));
            }
            tracing::warn!(gateway = %lease.authority(), %error, "a gateway can't be reached");
            tried.push(lease.id().clone());
        }
    }
}

/// `/api/…`, whatever the method.
pub(crate) async fn proxy(
    State(proxy): State<Arc<Proxy>>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
    let path = path
        .strip_prefix("/api/")
        .ok_or_else(|| Problem::no_such_path(path))?;
    let headers = only(&parts.headers, &REQUEST_HEADERS);
    let body = axum::body::to_bytes(body, MAX_BODY)
        .await
        .map_err(|_| Problem::body_too_large(MAX_BODY))?;
    proxy.forward(parts.method, path, headers, body).await
}

/// The gateway's answer, its body passed on piece by piece as it comes.
fn answer(upstream: reqwest::Response, lease: waypost::Lease) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = upstream.status();
    *response.headers_mut() = only(upstream.headers(), &RESPONSE_HEADERS);
    if let Ok(gateway) = HeaderValue::try_from(lease.authority()) {
        response.headers_mut().insert(GATEWAY, gateway);
    }
    // The work counts as in flight until the last piece.
    let pieces = upstream.bytes_stream().inspect_ok(move |_| _ = &lease);
    *response.body_mut() = Body::from_stream(pieces);
    response
}

fn only(all: &HeaderMap, wanted: &[HeaderName]) -> HeaderMap {
    let found = wanted
        .iter()
        .filter_map(|name| Some((name.clone(), all.get(name)?.clone())));
    found.collect()
}

fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
