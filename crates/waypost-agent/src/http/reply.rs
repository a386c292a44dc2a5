//! What handlers answer, before it becomes bytes on a connection.

use std::convert::Infallible;
use std::io::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{self, HeaderName, HeaderValue};
use http::{Response, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::Frame;
use tokio::sync::mpsc::Receiver;

use crate::store::Answer;

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub status: StatusCode,
    pub content_type: Option<&'static str>,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Body,
    /// Whether the answer depends on the encodings the client takes. Files don't.
    varies: bool,
    /// What follows the body, for ever: then nothing is compressed.
    lines: Option<Receiver<Bytes>>,
}

/// A body as it goes over the connection.
pub(crate) type Sent = Either<Full<Bytes>, Lines>;

/// Lines, as they come.
pub(crate) struct Lines(Receiver<Bytes>);

#[derive(Clone, Debug)]
pub(crate) enum Body {
    Own(Bytes),
    /// Shared with others who asked the same.
    Shared(Arc<Answer>),
    /// Not JSON but just what a client has stored.
    Raw(Bytes),
    /// There is nothing to show.
    Missing,
}

/// A request that can't be answered, in Consul's words.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    text: String,
    hangs_up: bool,
    /// Whether it comes out of a read, and so has the headers of one.
    of_read: bool,
}

static NOTHING: Bytes = Bytes::new();

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

impl Reply {
    /// 200 without a body or a type, as Consul answers most writes.
    pub(crate) fn empty() -> Self {
        Self {
            status: StatusCode::OK,
            content_type: None,
            headers: Vec::new(),
            body: Body::Own(Bytes::new()),
            varies: true,
            lines: None,
        }
    }

    /// A file, which is sent as it is.
    pub(crate) fn file(content_type: &'static str, body: &'static str) -> Self {
        Self {
            varies: false,
            ..Self::typed(content_type, body)
        }
    }

    /// Lines that are sent as they come, until the client goes.
    pub(crate) fn lines(lines: Receiver<Bytes>) -> Self {
        Self {
            content_type: Some(TEXT),
            lines: Some(lines),
            varies: false,
            ..Self::empty()
        }
    }

    pub(crate) fn varies(&self) -> bool {
        self.varies
    }

    /// The body with the status and the headers that go with it.
    pub(crate) fn of(body: Body) -> Self {
        match body {
            Body::Missing => Self::empty().status(StatusCode::NOT_FOUND),
            // A browser must not run what somebody has stored.
            Body::Raw(bytes) => Self::typed("text/plain", bytes)
                .header("x-content-type-options", "nosniff")
                .header("content-security-policy", "sandbox"),
            body => Self::json(body),
        }
    }

    pub(crate) fn json(body: Body) -> Self {
        Self {
            content_type: Some(JSON),
            body,
            ..Self::empty()
        }
    }

    pub(crate) fn typed(content_type: &'static str, body: impl Into<Bytes>) -> Self {
        Self {
            content_type: Some(content_type),
            body: Body::Own(body.into()),
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

    /// The answer for the connection, compressed if the client takes that.
    pub(crate) fn into_response(self, gzip: bool) -> Response<Sent> {
        let compressed = gzip && !self.body.plain().is_empty();
        let body = match self.body {
            Body::Own(body) if compressed => compress(&body),
            Body::Shared(answer) if compressed => answer.gzip(compress),
            body => body.plain().clone(),
        };
        let mut response = Response::new(match self.lines {
            Some(lines) => Either::Right(Lines(lines)),
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

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let line = self.0.poll_recv(context);
        line.map(|line| line.map(|line| Ok(Frame::data(line))))
    }
}

impl Body {
    /// The same answer if there were nothing to tell.
    pub(crate) fn emptied(&self) -> Self {
        let nothing: &[u8] = match self.plain().first() {
            Some(b'{') => b"{}",
            _ => b"[]",
        };
        Self::Own(Bytes::from_static(nothing))
    }

    fn plain(&self) -> &Bytes {
        match self {
            Self::Own(body) | Self::Raw(body) => body,
            Self::Shared(answer) => &answer.plain,
            Self::Missing => &NOTHING,
        }
    }
}

impl Refusal {
    pub(crate) fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self {
            status,
            text: text.into(),
            hangs_up: false,
            of_read: false,
        }
    }

    /// What a read of the catalog runs into only once it is under way.
    pub(crate) fn of_read(text: impl Into<String>) -> Self {
        Self {
            of_read: true,
            ..Self::internal(text)
        }
    }

    pub(crate) fn is_of_read(&self) -> bool {
        self.of_read
    }

    /// No words at all: the connection is closed.
    pub(crate) fn hang_up() -> Self {
        Self {
            hangs_up: true,
            ..Self::internal("")
        }
    }

    pub(crate) fn hangs_up(&self) -> bool {
        self.hangs_up
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

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        let reply = match refusal.text.as_str() {
            "" => Self::empty(),
            _ => Self::typed(TEXT, refusal.text),
        };
        reply.status(refusal.status)
    }
}

impl From<serde_json::Error> for Refusal {
    fn from(error: serde_json::Error) -> Self {
        Self::internal(error.to_string())
    }
}

fn compress(plain: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(plain.len() / 4), Compression::fast());
    // Writing to memory doesn't fail; if it did, the client would see a body it can't unpack.
    let _ = encoder.write_all(plain);
    encoder.finish().unwrap_or_default().into()
}
