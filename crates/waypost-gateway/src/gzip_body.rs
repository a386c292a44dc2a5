//! A body that is compressed while it is sent.

use std::io::Write;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::HeaderMap;
use hyper::body::{Body, Frame, SizeHint};

/// Compressed bytes are sent when there are this many, or when the body has to wait for more.
const CHUNK: usize = 16 * 1024;
/// How much is compressed before other requests of the worker get a turn.
const MAX_TURN: usize = 256 * 1024;

/// A body compressed with gzip. What has arrived is sent before it waits for more, so that streams stay
/// streams.
pub(crate) struct GzipBody<B> {
    inner: B,
    /// `None` once all data was passed on.
    encoder: Option<GzEncoder<Vec<u8>>>,
    /// Whether the encoder may hold data that was not passed on.
    is_dirty: bool,
    trailers: Option<HeaderMap>,
}

impl<B> GzipBody<B> {
    /// `level` is 1 (fast) to 9 (small).
    pub(crate) fn new(inner: B, level: u32) -> Self {
        Self {
            inner,
            encoder: Some(GzEncoder::new(Vec::new(), Compression::new(level))),
            is_dirty: false,
            trailers: None,
        }
    }

    /// What was compressed so far.
    fn take(&mut self) -> Option<Bytes> {
        let compressed = std::mem::take(self.encoder.as_mut()?.get_mut());
        (!compressed.is_empty()).then(|| Bytes::from(compressed))
    }

    fn flush(&mut self) -> Option<Bytes> {
        if std::mem::take(&mut self.is_dirty) {
            // Writing to memory doesn't fail.
            let _ = self.encoder.as_mut()?.flush();
        }
        self.take()
    }

    fn finish(&mut self) -> Option<Bytes> {
        let compressed = self.encoder.take()?.finish().ok()?;
        Some(Bytes::from(compressed))
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for GzipBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        let mut compressed = 0;
        loop {
            let Some(encoder) = &mut this.encoder else {
                return Poll::Ready(
                    this.trailers
                        .take()
                        .map(|fields| Ok(Frame::trailers(fields))),
                );
            };
            let frame = match Pin::new(&mut this.inner).poll_frame(cx) {
                Poll::Ready(frame) => frame,
                Poll::Pending => {
                    return match this.flush() {
                        Some(data) => Poll::Ready(Some(Ok(Frame::data(data)))),
                        None => Poll::Pending,
                    };
                }
            };
            match frame {
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => {
                        let _ = encoder.write_all(&data);
                        this.is_dirty = true;
                        compressed += data.len();
                        if encoder.get_ref().len() >= CHUNK {
                            return Poll::Ready(this.take().map(|data| Ok(Frame::data(data))));
                        }
                        if compressed >= MAX_TURN {
                            cx.waker().wake_by_ref();
                            return Poll::Pending;
                        }
                        continue;
                    }
                    Err(frame) => this.trailers = frame.into_trailers().ok(),
                },
                None => {}
            }
            let last = this.finish();
            return Poll::Ready(last.map(|data| Ok(Frame::data(data))));
        }
    }

    fn is_end_stream(&self) -> bool {
        self.encoder.is_none() && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io::Read;

    use futures_util::{FutureExt, StreamExt};
    use http_body_util::{BodyExt, StreamBody};
    use tokio::sync::mpsc;

    use super::*;

    fn unzip(compressed: &[u8]) -> String {
        let mut text = String::new();
        let mut decoder = flate2::read::GzDecoder::new(compressed);
        // The trailer is missing while the stream continues.
        let _ = decoder.read_to_string(&mut text);
        text
    }

    #[tokio::test]
    async fn what_has_arrived_is_sent_before_waiting_for_more() {
        let (sender, receiver) = mpsc::unbounded_channel::<Frame<Bytes>>();
        let frames = futures_util::stream::unfold(receiver, |mut receiver| async {
            let frame = receiver.recv().await?;
            Some((Ok::<_, Infallible>(frame), receiver))
        });
        let mut body = GzipBody::new(StreamBody::new(frames.boxed()), 5);
        let mut got = Vec::new();
        for text in ["one ", "two ", "three "] {
            sender.send(Frame::data(Bytes::from(text))).unwrap();
            let frame = body.frame().await.unwrap().unwrap();
            got.extend_from_slice(&frame.into_data().unwrap());
            assert!(unzip(&got).ends_with(text), "{:?}", unzip(&got));
            assert!(body.frame().now_or_never().is_none(), "nothing twice");
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("x-end", "1".parse().unwrap());
        sender.send(Frame::trailers(trailers)).unwrap();
        let last = body.frame().await.unwrap().unwrap();
        got.extend_from_slice(&last.into_data().unwrap());
        let mut whole = String::new();
        let mut decoder = flate2::read::GzDecoder::new(&*got);
        decoder.read_to_string(&mut whole).unwrap();
        assert_eq!(whole, "one two three ");
        let trailers = body.frame().await.unwrap().unwrap();
        assert_eq!(trailers.into_trailers().unwrap()["x-end"], "1");
        assert!(body.is_end_stream());
    }
}
