//! The way of a request from its head to its answer.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Body;
use tokio::time::timeout;

use super::blocking::Answering;
use super::call::{Call, Query};
use super::path::unescape;
use super::reply::{Refusal, Reply, Sent};
use super::route::{BodyLimit, Handler, Route};
use super::router::{self, Destination};
use crate::app::App;
use crate::guard::Denied;
use crate::monitor::Level;

/// The largest body that is read. Consul's own limits lie below: 512 KiB for a value.
const LARGEST_BODY: usize = 1024 * 1024;

/// The paths that tell nobody anything: who leads, and the page without its data.
const OPEN: [&str; 2] = ["/v1/status/", "/ui/"];

/// The body of a request must have come by then.
const BODY_WITHIN: Duration = Duration::from_secs(60);

/// The connection is to be closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("the connection was dropped on purpose")]
pub(crate) struct HangUp;

/// Answers one request, wherever it came from.
pub(crate) async fn answer<B>(app: Arc<App>, request: Request<B>) -> Result<Response<Sent>, HangUp>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if app.faults.refuses() {
        return Err(HangUp);
    }
    if let Some(delay) = app.faults.delay_of_answers() {
        tokio::time::sleep(delay).await;
    }
    let (head, body) = request.into_parts();
    // First of all, even if it isn't looked at: what is left unread costs the connection, on which
    // the client may be about to send its next request.
    let body = read_body(&head.headers, body).await;
    let gzip = takes_gzip(&head.headers);
    let method = head.method;
    let query = head.uri.query().unwrap_or_default();
    let Some(path) = unescape(head.uri.path()) else {
        return Ok(malformed());
    };
    if !path.bytes().all(|byte| matches!(byte, b' '..=b'~')) && !path.chars().all(is_printable) {
        let refusal = Reply::empty().status(StatusCode::BAD_REQUEST);
        return Ok(respond(refusal, false, false));
    }
    let (handler, route) = match router::route(&method, &path, query) {
        Destination::Handler { handler, route } => (handler, route),
        Destination::Answer { reply, known } => return Ok(respond(reply, known && gzip, known)),
    };
    let Some(query) = Query::parse(query) else {
        let refusal = Reply::empty().status(StatusCode::INTERNAL_SERVER_ERROR);
        return Ok(respond(refusal, gzip, true));
    };
    if !OPEN.iter().any(|path| route.path.starts_with(path))
        && let Err(denied) = app.guard.check(&head.headers, query.get("token"))
    {
        let (Denied::Token(text) | Denied::Elsewhere(text)) = denied;
        return Ok(respond(
            Refusal::new(StatusCode::FORBIDDEN, text).into(),
            gzip,
            true,
        ));
    }
    if let Some(refusal) = refused_namespace(route, &query, &head.headers) {
        return Ok(respond(refusal.into(), gzip, true));
    }
    if app.faults.fails() {
        let refusal = Refusal::internal("a fault was asked for");
        return Ok(respond(refusal.into(), gzip, true));
    }
    let length = match &body {
        Ok(body) => body.len(),
        Err(_) => content_length(&head.headers),
    };
    if let Some(refusal) = route.limit.and_then(|limit| limit.refusal(length)) {
        return Ok(respond(refusal.into(), gzip, true));
    }
    let body = match body {
        Ok(_) if method == Method::GET => Bytes::new(),
        Ok(body) => body,
        Err(refusal) => return Ok(closing(refusal)),
    };
    let call = Call {
        app,
        body,
        query,
        rest: path[route.path.len()..].to_owned(),
    };
    let store = (method != Method::GET).then(|| Arc::clone(&call.app.store));
    let says_cached = matches!(handler, Handler::Cached(_)) && call.query.has("cached");
    call.app.monitor.say(
        Level::Debug,
        // Without the query, which may hold a token.
        format_args!("agent.http: Request: method={method} path={path}"),
    );
    let answered = match handler {
        Handler::Plain(handle) => handle(&call),
        Handler::Later(handle) => handle(call).await,
        Handler::Blocking(read) | Handler::Cached(read) => match read.answer(call) {
            Answering::Now(answered) => answered,
            Answering::Later(answered) => answered.await,
        },
    };
    // What is acknowledged must have been kept.
    let answered = match store {
        Some(store) if answered.is_ok() => match store.saved().await {
            Ok(()) => answered,
            Err(failure) => Err(Refusal::internal(format!("can't save this: {failure}"))),
        },
        _ => answered,
    };
    match answered {
        Ok(reply) if says_cached => {
            let reply = reply.header("x-cache", "HIT").header("age", "0");
            Ok(respond(reply, gzip, true))
        }
        Ok(reply) => Ok(respond(reply, gzip, true)),
        Err(refusal) if refusal.hangs_up() => Err(HangUp),
        Err(refusal) => Ok(respond(refusal.into(), gzip, true)),
    }
}

/// Namespaces are for customers of Consul's makers; asking for one is refused, as there.
fn refused_namespace(route: &Route, query: &Query, headers: &HeaderMap) -> Option<Refusal> {
    const HEADER: &str = "X-Consul-Namespace";
    let named = headers.get(HEADER).is_some_and(|name| !name.is_empty());
    let place = if !query.get("ns").is_empty() {
        "query parameter: \"ns\"".to_owned()
    } else if named {
        format!("header: {HEADER:?}")
    } else {
        return None;
    };
    route.namespaced.then(|| {
        Refusal::bad_request(format!(
            "Bad request: Invalid {place} - Namespaces are a Consul Enterprise feature"
        ))
    })
}

/// What the client says it will send; 0 if it doesn't.
fn content_length(headers: &HeaderMap) -> usize {
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
    length.unwrap_or_default()
}

impl BodyLimit {
    fn refusal(self, length: usize) -> Option<Refusal> {
        let Self { size, setting } = self;
        (length > size).then(|| {
            Refusal::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!(
                    "Request body({length} bytes) too large, max size: {size} bytes. \
                     See https://www.consul.io/docs/agent/options.html#{setting}."
                ),
            )
        })
    }
}

async fn read_body<B>(headers: &HeaderMap, body: B) -> Result<Bytes, Refusal>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if body.is_end_stream() {
        return Ok(Bytes::new());
    }
    let too_large = || {
        Refusal::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("Request body too large, max size: {LARGEST_BODY} bytes."),
        )
    };
    if content_length(headers) > LARGEST_BODY {
        return Err(too_large());
    }
    let collected = Limited::new(body, LARGEST_BODY).collect();
    let collected = timeout(BODY_WITHIN, collected).await;
    match collected
        .map_err(|_| Refusal::new(StatusCode::REQUEST_TIMEOUT, "Request body too slow"))?
    {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Err(error) => Err(Refusal::bad_request(format!(
            "Request decode failed: {error}"
        ))),
    }
}

/// `known` is whether a route knew the path: only then the answer depends on the encoding.
fn respond(reply: Reply, gzip: bool, known: bool) -> Response<Sent> {
    let varies = known && reply.varies();
    let mut response = reply.into_response(gzip && varies);
    if varies {
        let encoding = HeaderValue::from_static("Accept-Encoding");
        response.headers_mut().insert(header::VARY, encoding);
    }
    response
}

/// What Go's server says to a request it can't read.
fn malformed() -> Response<Sent> {
    closing(Refusal::bad_request("400 Bad Request"))
}

/// The last answer on a connection.
fn closing(refusal: Refusal) -> Response<Sent> {
    let mut response = Reply::from(refusal).into_response(false);
    let close = HeaderValue::from_static("close");
    response.headers_mut().insert(header::CONNECTION, close);
    response
}

/// Consul refuses paths with characters that can't be seen, whatever they might do to a terminal.
/// Rust escapes just those when it shows a string, beside quotes and backslashes.
fn is_printable(character: char) -> bool {
    match character {
        ' '..='~' => true,
        // In front stands a letter, because a combining mark alone would be escaped too.
        other => {
            ['a', other]
                .iter()
                .collect::<String>()
                .escape_debug()
                .count()
                == 2
        }
    }
}

/// Whether the client takes a compressed body: it names `gzip` with a weight above 0.
fn takes_gzip(headers: &HeaderMap) -> bool {
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
    use super::*;

    #[test]
    fn gzip_is_used_only_where_it_is_taken() {
        for (value, expected) in [
            ("gzip", true),
            ("deflate, GZIP;q=0.5", true),
            ("gzip;q=0", false),
            ("identity", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(value));
            assert_eq!(takes_gzip(&headers), expected, "{value}");
        }
    }
}
