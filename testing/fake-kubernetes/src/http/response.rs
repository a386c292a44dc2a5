//! Responses: JSON or text at once, or the stream of a watch.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, StatusCode};
use http_body_util::{Either, Full};
use hyper::body::{Body, Frame};
use serde_json::Value;
use tokio::sync::mpsc;

use super::status::Status;

/// The body of a response.
pub(crate) type ResponseBody = Either<Full<Bytes>, Stream>;

/// A response as hyper sends it.
pub(crate) type Response = http::Response<ResponseBody>;

/// A body that is written while it is sent. It ends when its sender is dropped.
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

pub(crate) fn json(code: StatusCode, json: impl Into<Bytes>) -> Response {
    full(code, "application/json", json)
}

/// A successful response with this JSON.
pub(crate) fn ok(value: &Value) -> Response {
    json(StatusCode::OK, value.to_string())
}

/// The response of a server that sheds load. It is plain text, not a `Status`.
pub(crate) fn too_many_requests() -> Response {
    let text = "Too many requests, please try again later.\n";
    let code = StatusCode::TOO_MANY_REQUESTS;
    let mut response = full(code, "text/plain; charset=utf-8", text);
    let headers = response.headers_mut();
    headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
    response
}

/// A response whose body is what is sent to the sender.
pub(crate) fn stream() -> (Response, mpsc::Sender<Bytes>) {
    let (sender, receiver) = mpsc::channel(1);
    let body = Either::Right(Stream(receiver));
    (with_body(StatusCode::OK, "application/json", body), sender)
}

pub(crate) fn failure(status: &Status) -> Response {
    json(status.code, status.to_json().to_string())
}

fn full(code: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Response {
    with_body(code, content_type, Either::Left(Full::new(body.into())))
}

fn with_body(code: StatusCode, content_type: &'static str, body: ResponseBody) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
