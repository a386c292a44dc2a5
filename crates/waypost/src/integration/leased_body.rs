//! A response body that keeps its request in flight.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::balance::Lease;
use crate::outlier::Outcome;

pin_project! {
    /// A response body that holds the [`Lease`] of its request: the request counts as in flight until the
    /// body ends, fails or is dropped, even if it is separated from the response.
    ///
    /// A body that fails halfway counts as a failed request, although its status was a success.
    pub struct LeasedBody<B> {
        #[pin]
        body: B,
        lease: Option<Lease>,
    }
}

impl<B: Body> LeasedBody<B> {
    /// Holds `lease` until `body` ends.
    pub(crate) fn new(body: B, lease: Lease) -> Self {
        // The end of an empty body is never polled.
        let lease = (!body.is_end_stream()).then_some(lease);
        Self { body, lease }
    }
}

impl<B: Body> Body for LeasedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let mut this = self.project();
        let frame = ready!(this.body.as_mut().poll_frame(context));
        match &frame {
            Some(Ok(_)) if !this.body.is_end_stream() => {}
            Some(Ok(_)) | None => *this.lease = None,
            Some(Err(_)) => {
                if let Some(lease) = this.lease.take() {
                    lease.record(Outcome::Failed);
                }
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

impl<B> fmt::Debug for LeasedBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LeasedBody")
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use http_body_util::{BodyExt, Full};
    use waypost_core::Instance;
    use waypost_core::provider::MemoryProvider;

    use super::*;
    use crate::client::ServiceDiscoveryClient;

    #[tokio::test]
    async fn a_body_has_the_size_and_the_end_of_the_one_inside() {
        let memory = MemoryProvider::new();
        let instance = Instance::from_url("auth".parse().unwrap(), "http://10.0.0.1").unwrap();
        memory.insert(instance.build().unwrap());
        let client = ServiceDiscoveryClient::new(Arc::new(memory));
        let pick = client.pick("auth").await.unwrap();
        let endpoint = Arc::clone(pick.endpoint());
        let mut body = LeasedBody::new(Full::new(Bytes::from("hello")), pick.lease());
        assert_eq!(body.size_hint().exact(), Some(5));
        assert!(!body.is_end_stream());
        assert_eq!(endpoint.in_flight(), 1);
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "hello");
        assert!(body.is_end_stream());
        assert_eq!(endpoint.in_flight(), 0);
        let pick = client.pick("auth").await.unwrap();
        let empty = LeasedBody::new(Full::new(Bytes::new()), pick.lease());
        assert!(empty.is_end_stream());
        assert_eq!(endpoint.in_flight(), 0);
    }
}
