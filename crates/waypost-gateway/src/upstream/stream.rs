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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    async fn connected() -> (UpstreamStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await;
        let (server, _) = listener.accept().await.unwrap();
        (
            UpstreamStream::new(Transport::Plain(client.unwrap())),
            server,
        )
    }

    #[tokio::test]
    async fn a_response_is_read_after_the_server_has_closed_the_connection() {
        let (mut stream, mut server) = connected().await;
        server.write_all(b"early").await.unwrap();
        drop(server);
        // The first write still succeeds, and makes the server's system reset the connection.
        while !stream.write_failed {
            stream.write_all(b"the rest of the request").await.unwrap();
        }
        stream.write_all(b"more").await.unwrap();
        stream.flush().await.unwrap();
        let mut read = [0; 5];
        stream.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"early");
    }

    #[tokio::test]
    async fn only_a_disconnect_is_no_error_of_a_write() {
        use io::ErrorKind::{BrokenPipe, ConnectionReset, Other, TimedOut};
        let (mut stream, _server) = connected().await;
        for (kind, is_discarded) in [
            (TimedOut, false),
            (Other, false),
            (BrokenPipe, true),
            (ConnectionReset, true),
        ] {
            stream.write_failed = false;
            let written = stream.write(7, |_| Poll::Ready(Err(kind.into())));
            let written = written.map_err(|error| error.kind());
            let expected = if is_discarded { Ok(7) } else { Err(kind) };
            assert_eq!(written, Poll::Ready(expected));
            assert_eq!(stream.write_failed, is_discarded, "{kind}");
        }
    }
}
