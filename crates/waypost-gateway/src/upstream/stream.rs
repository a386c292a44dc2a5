//! The byte stream to an instance, with or without TLS.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::transport::Transport;

/// A connection on which a failed write does not hide a response that is already there.
///
/// A server may respond early (413, 401) and close without reading the rest of the request. The next
/// write then fails while the response waits to be read, and hyper would report the failed write.
/// This stream discards further writes instead, so that hyper reads the response or the end.
#[derive(Debug)]
pub(crate) struct UpstreamStream {
    transport: Transport,
    /// A write has failed, so all further writes are discarded.
    write_failed: bool,
}

impl UpstreamStream {
    pub(super) fn new(transport: Transport) -> Self {
        Self {
            transport,
            write_failed: false,
        }
    }

    /// Calls `write`, and replaces a disconnect by `Ok(value)`.
    fn write<T>(
        &mut self,
        value: T,
        write: impl FnOnce(Pin<&mut Transport>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if self.write_failed {
            return Poll::Ready(Ok(value));
        }
        match write(Pin::new(&mut self.transport)) {
            Poll::Ready(Err(error)) if is_disconnect(&error) => {
                self.write_failed = true;
                Poll::Ready(Ok(value))
            }
            result => result,
        }
    }
}

fn is_disconnect(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
    )
}

impl AsyncRead for UpstreamStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().transport).poll_read(cx, buffer)
    }
}

impl AsyncWrite for UpstreamStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.get_mut()
            .write(bytes.len(), |stream| stream.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let total = buffers.iter().map(|buffer| buffer.len()).sum();
        self.get_mut()
            .write(total, |stream| stream.poll_write_vectored(cx, buffers))
    }

    fn is_write_vectored(&self) -> bool {
        self.transport.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().write((), |stream| stream.poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().write((), |stream| stream.poll_shutdown(cx))
    }
}
