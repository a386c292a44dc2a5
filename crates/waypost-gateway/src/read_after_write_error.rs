//! A connection on which a failed write does not hide a response that has already arrived.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};

/// Keeps reading from a connection after a write has failed.
///
/// A server may respond early (413, 401) and close without reading the rest of the request. The
/// next write then fails while the response waits to be read, and hyper would report the failed
/// write. This wrapper discards further writes instead, so that hyper reads the response or the
/// end of the stream.
pub(crate) struct ReadAfterWriteError<S> {
    stream: S,
    /// A write has failed, so all further writes are discarded.
    write_failed: bool,
}

impl<S> ReadAfterWriteError<S> {
    pub(crate) fn new(stream: S) -> Self {
        Self {
            stream,
            write_failed: false,
        }
    }

    /// Replaces a disconnect by `Ok(value)`.
    fn ignore_disconnect<T>(
        &mut self,
        result: Poll<io::Result<T>>,
        value: T,
    ) -> Poll<io::Result<T>> {
        match result {
            Poll::Ready(Err(error))
                if matches!(
                    error.kind(),
                    io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset
                ) =>
            {
                self.write_failed = true;
                Poll::Ready(Ok(value))
            }
            result => result,
        }
    }
}

impl<S: Read + Unpin> Read for ReadAfterWriteError<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: Write + Unpin> Write for ReadAfterWriteError<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.write_failed {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.ignore_disconnect(written, bytes.len())
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let total = bufs.iter().map(|buf| buf.len()).sum();
        if self.write_failed {
            return Poll::Ready(Ok(total));
        }
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.ignore_disconnect(written, total)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.write_failed {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.ignore_disconnect(flushed, ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: Connection> Connection for ReadAfterWriteError<S> {
    fn connected(&self) -> Connected {
        self.stream.connected()
    }
}
