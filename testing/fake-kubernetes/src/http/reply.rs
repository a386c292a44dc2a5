//! Answers: JSON at once, text, or the stream of a watch.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{Either, Full};
use hyper::body::{Body, Frame};
use serde_json::Value;
use tokio::sync::mpsc;

use super::Status;

/// What is sent.
pub(crate) type Sent = Either<Full<Bytes>, Stream>;

/// A body that is written while it is sent. It ends when its writer does.
pub(crate) struct Stream(mpsc::Receiver<Bytes>);

impl Body for Stream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0
            .poll_recv(cx)
            .map(|it| it.map(|it| Ok(Frame::data(it))))
    }
}

/// An answer.
pub(crate) struct Reply {
    pub code: StatusCode,
    content_type: &'static str,
    retry_after: Option<u64>,
    body: Sent,
}

impl Reply {
    pub(crate) fn json(code: StatusCode, json: &Value) -> Self {
        Self::bytes(code, "application/json", json.to_string())
    }

    pub(crate) fn ok(body: impl Into<Bytes>) -> Self {
        Self::bytes(StatusCode::OK, "application/json", body)
    }

    pub(crate) fn text(code: StatusCode, text: impl Into<Bytes>) -> Self {
        Self::bytes(code, "text/plain; charset=utf-8", text)
    }

    /// What a server says that has too much to do: it comes before all that words refusals.
    pub(crate) fn too_many_requests() -> Self {
        let text = "Too many requests, please try again later.\n";
        Self {
            retry_after: Some(1),
            ..Self::text(StatusCode::TOO_MANY_REQUESTS, text)
        }
    }

    pub(crate) fn bytes(
        code: StatusCode,
        content_type: &'static str,
        body: impl Into<Bytes>,
    ) -> Self {
        Self {
            code,
            content_type,
            retry_after: None,
            body: Either::Left(Full::new(body.into())),
        }
    }

    /// A stream, and where to write what it sends.
    pub(crate) fn stream() -> (Self, mpsc::Sender<Bytes>) {
        let (sender, receiver) = mpsc::channel(1);
        let reply = Self {
            code: StatusCode::OK,
            content_type: "application/json",
            retry_after: None,
            body: Either::Right(Stream(receiver)),
        };
        (reply, sender)
    }

    pub(crate) fn into_response(self) -> Response<Sent> {
        let mut response = Response::new(self.body);
        *response.status_mut() = self.code;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static(self.content_type),
        );
        headers.insert(
            header::CACHE_CONTROL,
            HeaderValue::from_static("no-cache, private"),
        );
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<Status> for Reply {
    fn from(status: Status) -> Self {
        Self {
            retry_after: status.retry_after(),
            ..Self::json(status.code, &status.to_json())
        }
    }
}
