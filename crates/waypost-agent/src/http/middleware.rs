//! The steps that every request goes through, from its head to its response: [`handle`] lists them in
//! order. A step that rejects a request ends the sequence with a [`Rejection`].

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HeaderMap, HeaderValue};
use http::request::Parts;
use http::{Method, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Limited};
use hyper::body::Body;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use super::blocking::QueryOutcome;
use super::evaluation::evaluate;
use super::idle_timeout::ConnectionState;
use super::path::unescape;
use super::request::{ApiRequest, QueryParams};
use super::response::{ApiError, ApiResponse, WireBody};
use super::route::{BodyLimit, Handler, Route};
use super::router;
use super::router::RouteMatch;
use crate::app::App;
use crate::auth::{Auth, AuthError};
use crate::faults::Faults;
use crate::store::Store;

/// The largest body that is read. Consul's own limits are lower: 512 KiB for a value.
const MAX_BODY_BYTES: usize = 1024 * 1024;

/// The time within which the body of a request must arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// Larger bodies are read only while there is a permit in [`App::large_bodies`].
const SMALL_BODY_BYTES: u64 = 16 * 1024;

/// The number of large bodies at the same time.
pub(crate) const MAX_LARGE_BODIES: usize = 128;

/// The largest body of a rejected request that is read, so that the connection can be kept. Go's
/// HTTP server has the same limit.
const MAX_DISCARDED_BYTES: usize = 256 * 1024;

/// The time within which the body of a rejected request must arrive.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(5);

/// Routes that need no token: the leader, and the web page without its data.
const PUBLIC_PATHS: [&str; 2] = ["/v1/status/", "/ui/"];

/// Closes the connection without a response.
#[derive(Debug, thiserror::Error)]
#[error("connection closed by an injected fault")]
pub(crate) struct ConnectionClosed;

/// Why a request didn't reach its handler, or what its handler returned as an error.
enum Rejection {
    /// The path has no route, so that the response doesn't depend on `Accept-Encoding`.
    NoRoute(ApiResponse),
    /// The request can't be read any further: this is the last response on the connection.
    Unreadable(ApiError),
    /// An error response of a route.
    Route(ApiResponse),
    /// No response: the connection is closed.
    Close,
}

/// A request whose head has been accepted.
struct Admitted {
    /// Whether the route needs no token. Then the body is ignored.
    is_public: bool,
    /// Percent-decoded.
    path: String,
    query: QueryParams,
    handler: &'static Handler,
    route: &'static Route,
}

/// Answers one request of a connection.
pub(crate) async fn handle<B>(
    app: Arc<App>,
    request: Request<B>,
    connection: &ConnectionState,
) -> Result<Response<WireBody>, ConnectionClosed>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    inject_connection_faults(&app.faults).await?;
    let (head, body) = request.into_parts();
    let gzip = accepts_gzip(&head.headers);
    let result = match admit(&app, &head) {
        Ok(admitted) => {
            let (body, _permit) = if admitted.is_public {
                discard(body).await;
                (Ok(Bytes::new()), None)
            } else {
                connection.authenticated();
                read_body(&app.large_bodies, &head.headers, body).await
            };
            process(app, head, admitted, body).await
        }
        Err(rejection) => {
            // Otherwise hyper would close the connection, on which the client may already be sending
            // its next request.
            discard(body).await;
            Err(rejection)
        }
    };
    match result {
        Ok(response) | Err(Rejection::Route(response)) => Ok(encode(response, gzip)),
        Err(Rejection::NoRoute(response)) => Ok(response.into_response(false)),
        Err(Rejection::Unreadable(error)) => Ok(closing(error)),
        Err(Rejection::Close) => Err(ConnectionClosed),
    }
}

/// The steps before the body is read.
fn admit(app: &App, head: &Parts) -> Result<Admitted, Rejection> {
    reject_several_hosts(&head.headers)?;
    let path = decode_path(&head.uri)?;
    let (handler, route) = find_handler(head, &path)?;
    let query = parse_query(&head.uri)?;
    let is_public = PUBLIC_PATHS.iter().any(|path| route.path.starts_with(path));
    if !is_public {
        authenticate(&app.auth, &head.uri, &head.headers, &query)?;
    }
    Ok(Admitted {
        is_public,
        path,
        query,
        handler,
        route,
    })
}

async fn process(
    app: Arc<App>,
    mut head: Parts,
    admitted: Admitted,
    body: Result<Bytes, ApiError>,
) -> Result<ApiResponse, Rejection> {
    let Admitted {
        path,
        query,
        handler,
        route,
        ..
    } = admitted;
    reject_namespace(route, &head.headers, &query)?;
    inject_failure(&app.faults)?;
    check_body_limit(route, &head.headers, &body)?;
    let body = take_body(&head.method, body)?;
    app.monitor.request_received(&head.method, &path);
    let store = Arc::clone(&app.store);
    let is_cached = matches!(handler, Handler::CachedBlocking(_)) && query.has("cached");
    let suffix = path[route.path.len()..].to_owned();
    let request = ApiRequest {
        app,
        headers: std::mem::take(&mut head.headers),
        body,
        query,
        suffix,
        evaluation_limit: None,
    };
    let mut response = call(handler, request).await?;
    if head.method != Method::GET {
        wait_until_persisted(&store).await?;
    }
    if is_cached {
        response = response.cache_hit();
    }
    Ok(response)
}

/// Applies the faults that concern the connection rather than the response.
async fn inject_connection_faults(faults: &Faults) -> Result<(), ConnectionClosed> {
    if faults.is_refusing() {
        return Err(ConnectionClosed);
    }
    if let Some(delay) = faults.response_delay() {
        tokio::time::sleep(delay).await;
    }
    Ok(())
}

/// Reads the body up to [`MAX_BODY_BYTES`]. A large one needs a share of the memory for large
/// bodies, which is returned with it.
async fn read_body<B>(
    large_bodies: &Arc<Semaphore>,
    headers: &HeaderMap,
    body: B,
) -> (Result<Bytes, ApiError>, Option<OwnedSemaphorePermit>)
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if body.is_end_stream() {
        return (Ok(Bytes::new()), None);
    }
    let is_small = body
        .size_hint()
        .upper()
        .is_some_and(|upper| upper <= SMALL_BODY_BYTES);
    if is_small {
        return (collect_body(headers, body).await, None);
    }
    let Ok(permit) = timeout(BODY_TIMEOUT, Arc::clone(large_bodies).acquire_owned()).await else {
        let text = "Too many large requests at the same time";
        let error = ApiError::new(StatusCode::SERVICE_UNAVAILABLE, text);
        return (Err(error), None);
    };
    (collect_body(headers, body).await, permit.ok())
}

async fn collect_body<B>(headers: &HeaderMap, body: B) -> Result<Bytes, ApiError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let too_large = || {
        ApiError::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("Request body too large, max size: {MAX_BODY_BYTES} bytes."),
        )
    };
    if content_length(headers) > MAX_BODY_BYTES {
        return Err(too_large());
    }
    let collected = timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY_BYTES).collect()).await;
    let collected = collected
        .map_err(|_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "Request body too slow"))?;
    match collected {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Err(error) => Err(ApiError::bad_request(format!(
            "Request decode failed: {error}"
        ))),
    }
}

/// Reads the body of a rejected request without keeping it, unless it is large or slow.
async fn discard<B: Body<Data = Bytes>>(body: B) {
    let discard = async {
        let mut body = pin!(body);
        let mut received = 0;
        while received <= MAX_DISCARDED_BYTES
            && let Some(Ok(frame)) = body.frame().await
        {
            received += frame.data_ref().map_or(0, Bytes::len);
        }
    };
    let _ = timeout(DISCARD_TIMEOUT, discard).await;
}

/// A request with several hosts is ambiguous: a proxy in front of the agent may have used a different
/// one. The text is that of Go's HTTP server.
fn reject_several_hosts(headers: &HeaderMap) -> Result<(), Rejection> {
    if headers.get_all(header::HOST).iter().count() < 2 {
        return Ok(());
    }
    let error = ApiError::bad_request("400 Bad Request: too many Host headers");
    Err(Rejection::Unreadable(error))
}

/// The percent-decoded path. Consul rejects paths with unprintable characters.
fn decode_path(uri: &Uri) -> Result<String, Rejection> {
    let Some(path) = unescape(uri.path()) else {
        // The text of Go's HTTP server.
        let error = ApiError::bad_request("400 Bad Request");
        return Err(Rejection::Unreadable(error));
    };
    let is_ascii = path.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    if !is_ascii && !path.chars().all(is_printable) {
        let response = ApiResponse::empty().status(StatusCode::BAD_REQUEST);
        return Err(Rejection::NoRoute(response));
    }
    Ok(path)
}

fn find_handler(head: &Parts, path: &str) -> Result<(&'static Handler, &'static Route), Rejection> {
    let query = head.uri.query().unwrap_or_default();
    match router::route(&head.method, path, query) {
        RouteMatch::Handler { handler, route } => Ok((handler, route)),
        RouteMatch::Response {
            response,
            path_exists: true,
        } => Err(Rejection::Route(response)),
        RouteMatch::Response { response, .. } => Err(Rejection::NoRoute(response)),
    }
}

fn parse_query(uri: &Uri) -> Result<QueryParams, Rejection> {
    QueryParams::parse(uri.query().unwrap_or_default()).ok_or_else(|| {
        let response = ApiResponse::empty().status(StatusCode::INTERNAL_SERVER_ERROR);
        Rejection::Route(response)
    })
}

/// Checks the token, or without one the `Host` and `Origin` headers.
fn authenticate(
    auth: &Auth,
    uri: &Uri,
    headers: &HeaderMap,
    query: &QueryParams,
) -> Result<(), Rejection> {
    auth.check(uri, headers, query.get("token"))
        .map_err(|error| {
            let (AuthError::Token(text) | AuthError::ForeignHost(text)) = error;
            ApiError::new(StatusCode::FORBIDDEN, text).into()
        })
}

/// Namespaces exist only in Consul Enterprise. A request that names one is rejected, as by Consul.
fn reject_namespace(
    route: &Route,
    headers: &HeaderMap,
    query: &QueryParams,
) -> Result<(), Rejection> {
    const HEADER: &str = "X-Consul-Namespace";
    let source = if !route.rejects_namespace {
        return Ok(());
    } else if !query.get("ns").is_empty() {
        "query parameter: \"ns\"".to_owned()
    } else if headers.get(HEADER).is_some_and(|name| !name.is_empty()) {
        format!("header: {HEADER:?}")
    } else {
        return Ok(());
    };
    let text =
        format!("Bad request: Invalid {source} - Namespaces are a Consul Enterprise feature");
    Err(ApiError::bad_request(text).into())
}

fn inject_failure(faults: &Faults) -> Result<(), Rejection> {
    if faults.is_failing() {
        return Err(ApiError::internal("injected fault").into());
    }
    Ok(())
}

fn check_body_limit(
    route: &Route,
    headers: &HeaderMap,
    body: &Result<Bytes, ApiError>,
) -> Result<(), Rejection> {
    let Some(BodyLimit { size, setting }) = route.body_limit else {
        return Ok(());
    };
    let length = match body {
        Ok(body) => body.len(),
        Err(_) => content_length(headers),
    };
    if length <= size {
        return Ok(());
    }
    let text = format!(
        "Request body({length} bytes) too large, max size: {size} bytes. \
         See https://www.consul.io/docs/agent/options.html#{setting}."
    );
    Err(ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, text).into())
}

/// The body for the handler: always empty for GET.
fn take_body(method: &Method, body: Result<Bytes, ApiError>) -> Result<Bytes, Rejection> {
    let body = body.map_err(Rejection::Unreadable)?;
    Ok(if *method == Method::GET {
        Bytes::new()
    } else {
        body
    })
}

async fn call(handler: &'static Handler, request: ApiRequest) -> Result<ApiResponse, ApiError> {
    match handler {
        Handler::Sync(handler) if request.has_filter() => evaluate(&request, *handler).await,
        Handler::Sync(handler) => handler(&request),
        Handler::Async(handler) => handler(request).await,
        Handler::Blocking(query) | Handler::CachedBlocking(query) => match query.start(request) {
            QueryOutcome::Ready(result) => result,
            QueryOutcome::Waiting(result) => result.await,
        },
    }
}

/// A write is acknowledged only once it is on disk.
async fn wait_until_persisted(store: &Store) -> Result<(), ApiError> {
    store
        .persisted()
        .await
        .map_err(|error| ApiError::internal(format!("failed to persist the change: {error}")))
}

/// The response of a route, compressed if the client accepts that.
fn encode(response: ApiResponse, gzip: bool) -> Response<WireBody> {
    let varies = response.varies();
    let mut response = response.into_response(gzip && varies);
    if varies {
        let encoding = HeaderValue::from_static("Accept-Encoding");
        response.headers_mut().insert(header::VARY, encoding);
    }
    response
}

/// The last response on a connection.
fn closing(error: ApiError) -> Response<WireBody> {
    let mut response = ApiResponse::from(error).into_response(false);
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}

impl From<ApiError> for Rejection {
    fn from(error: ApiError) -> Self {
        if error.closes_connection() {
            Self::Close
        } else {
            Self::Route(error.into())
        }
    }
}

/// The value of `Content-Length`, or 0.
fn content_length(headers: &HeaderMap) -> usize {
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    length.unwrap_or_default()
}

/// Whether a character is printable by the rules of Go's `unicode.IsPrint`. `char::escape_debug`
/// escapes just the unprintable ones, and quotes and backslashes.
fn is_printable(character: char) -> bool {
    match character {
        ' '..='~' => true,
        // Starts with a letter, because a combining mark by itself would be escaped too.
        other => {
            let text: String = ['a', other].iter().collect();
            text.escape_debug().count() == 2
        }
    }
}

/// Whether `Accept-Encoding` lists `gzip` with a weight above 0.
fn accepts_gzip(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).into_iter();
    let mut codings = values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','));
    codings.any(|coding| {
        let (name, parameters) = coding.split_once(';').unwrap_or((coding, ""));
        let weight = parameters.trim().strip_prefix("q=");
        name.trim().eq_ignore_ascii_case("gzip")
            && weight.is_none_or(|weight| weight.parse().is_ok_and(|weight: f32| weight > 0.0))
    })
}

#[cfg(test)]
mod tests {
    use http_body_util::Full;

    use super::*;

    #[test]
    fn gzip_is_used_only_if_the_client_accepts_it() {
        for (value, expected) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("identity", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
            assert_eq!(accepts_gzip(&headers), expected, "{value}");
        }
    }

    #[tokio::test]
    async fn a_body_is_limited_whether_or_not_its_length_is_announced() {
        let mut announced = HeaderMap::new();
        announced.insert("content-length", (MAX_BODY_BYTES + 1).into());
        for (headers, length, expected) in [
            (HeaderMap::new(), MAX_BODY_BYTES, None),
            (
                HeaderMap::new(),
                MAX_BODY_BYTES + 1,
                Some(StatusCode::PAYLOAD_TOO_LARGE),
            ),
            (announced, 0, Some(StatusCode::PAYLOAD_TOO_LARGE)),
        ] {
            let body = Full::new(Bytes::from(vec![0; length]));
            let collected = collect_body(&headers, body).await;
            let status = collected
                .err()
                .map(|error| ApiResponse::from(error).into_response(false).status());
            assert_eq!(status, expected, "{length} bytes");
        }
    }
}
