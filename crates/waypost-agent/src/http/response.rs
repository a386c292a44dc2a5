//! Responses and errors of handlers, and their conversion to HTTP responses.

use std::convert::Infallible;
use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{HeaderName, HeaderValue};
use http::{Response, StatusCode, header};
use http_body_util::{Either, Full};
use hyper::body::Frame;
use tokio::sync::mpsc::Receiver;

use crate::store::CachedBody;

/// The response of a handler.
#[derive(Debug)]
pub(crate) struct ApiResponse {
    status: StatusCode,
    content_type: Option<&'static str>,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: ResponseBody,
    /// Whether the response may be compressed and so depends on `Accept-Encoding`.
    varies: bool,
    /// Lines that are streamed after the body, without end.
    lines: Option<Receiver<Bytes>>,
}

#[derive(Clone, Debug)]
pub(crate) enum ResponseBody {
    /// JSON.
    Owned(Bytes),
    /// JSON shared by all requests with the same response.
    Shared(Arc<CachedBody>),
    /// Bytes that a client has stored.
    Raw(Bytes),
    /// No body: 404.
    NotFound,
}

/// The body of an HTTP response.
pub(crate) type WireBody = Either<Full<Bytes>, LineStream>;

/// Sends lines as they arrive.
pub(crate) struct LineStream {
    lines: Receiver<Bytes>,
    /// `None` if the lines aren't compressed.
    encoder: Option<GzEncoder<Vec<u8>>>,
}

/// An error response. The text is Consul's where Consul has one.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    text: String,
    closes_connection: bool,
    /// Whether the response has the headers of a blocking query.
    is_query_error: bool,
}

static EMPTY: Bytes = Bytes::new();

const EVENTS: &str = "text/event-stream";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

impl ApiResponse {
    /// 200 without a body or a content type, as Consul responds to most writes.
    pub(crate) fn empty() -> Self {
        Self {
            status: StatusCode::OK,
            content_type: None,
            headers: Vec::new(),
            body: ResponseBody::Owned(Bytes::new()),
            varies: true,
            lines: None,
        }
    }

    /// A response that is sent as it is.
    pub(crate) fn complete(response: Response<Bytes>) -> Self {
        let (head, body) = response.into_parts();
        let headers = head.headers.into_iter();
        Self {
            status: head.status,
            headers: headers
                .filter_map(|(name, value)| Some((name?, value)))
                .collect(),
            body: ResponseBody::Owned(body),
            varies: false,
            ..Self::empty()
        }
    }

    /// A stream of lines that lasts until the client disconnects.
    pub(crate) fn lines(lines: Receiver<Bytes>) -> Self {
        Self {
            content_type: Some(TEXT),
            lines: Some(lines),
            varies: false,
            ..Self::empty()
        }
    }

    /// A stream of server-sent events that lasts until the client disconnects.
    pub(crate) fn events(events: Receiver<Bytes>) -> Self {
        let response = Self {
            content_type: Some(EVENTS),
            lines: Some(events),
            ..Self::empty()
        };
        response.header("cache-control", "no-store")
    }

    /// The body, with the status and headers of its kind.
    pub(crate) fn of(body: ResponseBody) -> Self {
        match body {
            ResponseBody::NotFound => Self::empty().status(StatusCode::NOT_FOUND),
            // A browser must not run what a client has stored.
            ResponseBody::Raw(bytes) => Self::typed("text/plain", bytes)
                .header("x-content-type-options", "nosniff")
                .header("content-security-policy", "sandbox"),
            body => Self::json(body),
        }
    }

    pub(crate) fn json(body: ResponseBody) -> Self {
        Self {
            content_type: Some(JSON),
            body,
            ..Self::empty()
        }
    }

    pub(crate) fn typed(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self {
            content_type: Some(content_type),
            body: ResponseBody::Owned(body.into()),
            ..Self::empty()
        }
    }

    pub(crate) fn status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    pub(crate) fn header(mut self, name: &'static str, value: impl AsRef<str>) -> Self {
        if let Ok(value) = HeaderValue::from_str(value.as_ref()) {
            self.headers.push((HeaderName::from_static(name), value));
        }
        self
    }

    /// Adds the headers that Consul adds to a response from its cache.
    pub(crate) fn cache_hit(self) -> Self {
        self.header("x-cache", "HIT").header("age", "0")
    }

    pub(crate) fn varies(&self) -> bool {
        self.varies
    }

    pub(crate) fn into_response(self, gzip: bool) -> Response<WireBody> {
        let is_empty = self.body.uncompressed().is_empty() && self.lines.is_none();
        let compressed = gzip && !is_empty;
        let body = match self.body {
            ResponseBody::Owned(body) if compressed => compress(&body),
            ResponseBody::Shared(cached) if compressed => cached.gzip(compress),
            // Kept alive until it is sent, so that later requests can share it.
            ResponseBody::Shared(cached) => Bytes::from_owner(Uncompressed(cached)),
            body => body.uncompressed().clone(),
        };
        let mut response = Response::new(match self.lines {
            Some(lines) => Either::Right(LineStream::new(lines, compressed)),
            None => Either::Left(Full::new(body)),
        });
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if let Some(content_type) = self.content_type {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        if compressed {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        headers.extend(self.headers);
        response
    }
}

impl LineStream {
    fn new(lines: Receiver<Bytes>, compressed: bool) -> Self {
        let encoder = compressed.then(|| GzEncoder::new(Vec::new(), Compression::fast()));
        Self { lines, encoder }
    }

    /// The line as it is sent, flushed so that the client can decompress it at once.
    fn encode(&mut self, line: Bytes) -> Bytes {
        let Some(encoder) = &mut self.encoder else {
            return line;
        };
        // Writing to memory doesn't fail.
        let _ = encoder.write_all(&line).and_then(|()| encoder.flush());
        std::mem::take(encoder.get_mut()).into()
    }
}

impl hyper::body::Body for LineStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let line = self.lines.poll_recv(context);
        line.map(|line| line.map(|line| Ok(Frame::data(self.encode(line)))))
    }
}

impl ResponseBody {
    /// An empty object or list, depending on the body.
    pub(crate) fn to_empty(&self) -> Self {
        let empty: &[u8] = match self.uncompressed().first() {
            Some(b'{') => b"{}",
            _ => b"[]",
        };
        Self::Owned(Bytes::from_static(empty))
    }

    fn uncompressed(&self) -> &Bytes {
        match self {
            Self::Owned(body) | Self::Raw(body) => body,
            Self::Shared(cached) => &cached.uncompressed,
            Self::NotFound => &EMPTY,
        }
    }
}

/// The uncompressed bytes of a shared body.
struct Uncompressed(Arc<CachedBody>);

impl AsRef<[u8]> for Uncompressed {
    fn as_ref(&self) -> &[u8] {
        &self.0.uncompressed
    }
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
            closes_connection: false,
            is_query_error: false,
        }
    }

    /// 500 with the headers of a blocking query, as Consul sends it once the query has started.
    pub(crate) fn query_error(text: impl Into<String>) -> Self {
        Self {
            is_query_error: true,
            ..Self::internal(text)
        }
    }

    pub(crate) fn is_query_error(&self) -> bool {
        self.is_query_error
    }

    /// Closes the connection without a response.
    pub(crate) fn close_connection() -> Self {
        Self {
            closes_connection: true,
            ..Self::internal("")
        }
    }

    pub(crate) fn closes_connection(&self) -> bool {
        self.closes_connection
    }

    pub(crate) fn bad_request(text: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, text)
    }

    pub(crate) fn not_found(text: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, text)
    }

    pub(crate) fn internal(text: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, text)
    }
}

impl From<ApiError> for ApiResponse {
    fn from(error: ApiError) -> Self {
        let response = if error.text.is_empty() {
            Self::empty()
        } else {
            Self::typed(TEXT, error.text)
        };
        response.status(error.status)
    }
}

impl From<serde_json::Error> for ApiError {
    fn from(error: serde_json::Error) -> Self {
        Self::internal(error.to_string())
    }
}

fn compress(body: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::fast());
    // Writing to memory doesn't fail.
    let _ = encoder.write_all(body);
    encoder.finish().unwrap_or_default().into()
}
