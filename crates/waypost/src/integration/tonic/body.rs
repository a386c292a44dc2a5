//! The body of a gRPC response, which ends with the status of the call.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Frame, SizeHint};
use tonic::Status;
use tonic::body::Body;

use super::outcome::status_outcome;
use crate::balance::Lease;
use crate::integration::span::AttemptSpan;
use crate::outlier::Outcome;

/// Keeps a call in flight, and its span open, until the body ends, fails or is dropped.
///
/// Records the status in the trailers. The head of the response has already been recorded as a success, so for
/// the instance only a different outcome is recorded.
pub(super) struct CallBody {
    body: Body,
    call: Option<(Lease, AttemptSpan)>,
}

impl CallBody {
    pub(super) fn new(body: Body, lease: Lease, span: AttemptSpan) -> Self {
        Self {
            body,
            call: Some((lease, span)),
        }
    }
}

impl http_body::Body for CallBody {
    type Data = <Body as http_body::Body>::Data;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Status>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        let is_last = match &frame {
            Some(Ok(frame)) => frame.is_trailers() || self.body.is_end_stream(),
            Some(Err(_)) | None => true,
        };
        if is_last && let Some((lease, span)) = self.call.take() {
            match frame
                .as_ref()
                .map(|frame| frame.as_ref().map(Frame::trailers_ref))
            {
                Some(Ok(Some(trailers))) => {
                    span.record_grpc_status(trailers);
                    match status_outcome(trailers) {
                        None | Some(Outcome::Succeeded) => {}
                        Some(outcome) => lease.record(outcome),
                    }
                }
                Some(Err(_)) => {
                    span.record_error("connection_lost");
                    lease.record(Outcome::Failed);
                }
                Some(Ok(None)) | None => {}
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::sync::Arc;

    use futures_util::stream;
    use http::HeaderMap;
    use http_body_util::{BodyExt, StreamBody};
    use waypost_core::Instance;
    use waypost_core::provider::MemoryProvider;

    use super::*;
    use crate::client::ServiceDiscoveryClient;

    /// Makes a call whose trailers have this status. Returns the failures and the calls in flight of the
    /// instance after it.
    async fn failed_and_in_flight(status: &str) -> (u32, usize) {
        let memory = MemoryProvider::new();
        let instance = Instance::from_url("auth".parse().unwrap(), "http://10.0.0.1").unwrap();
        memory.insert(instance.build().unwrap());
        let client = ServiceDiscoveryClient::new(Arc::new(memory));
        let pick = client.pick("auth").await.unwrap();
        let lease = pick.lease();
        let span = AttemptSpan::grpc("/echo.Echo/Stream", &"auth".parse().unwrap(), &lease);
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", status.parse().unwrap());
        let frames = [Frame::data("message".into()), Frame::trailers(trailers)];
        let frames = stream::iter(frames.map(Ok::<_, Infallible>));
        let body = CallBody::new(Body::new(StreamBody::new(frames)), lease, span);
        assert_eq!(pick.endpoint().in_flight(), 1);
        let collected = body.collect().await.unwrap();
        assert!(collected.trailers().is_some());
        let explanation = client.explain("auth").await.unwrap();
        let instance = &explanation.instances[0];
        (instance.failed, instance.in_flight)
    }

    #[tokio::test]
    async fn a_failure_after_the_first_message_counts() {
        assert_eq!(failed_and_in_flight("14").await, (1, 0));
        assert_eq!(failed_and_in_flight("0").await, (0, 0));
        // INVALID_ARGUMENT is the caller's fault.
        assert_eq!(failed_and_in_flight("3").await, (0, 0));
    }
}
