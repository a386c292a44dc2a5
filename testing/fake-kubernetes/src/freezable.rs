//! A connection that can be frozen, like one of a stopped process.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// A connection that reads and writes nothing while it is frozen, and does not fail.
pub(crate) struct FreezableStream {
    stream: TcpStream,
    is_frozen: watch::Receiver<bool>,
    thawed: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl FreezableStream {
    pub(crate) fn new(stream: TcpStream, is_frozen: watch::Receiver<bool>) -> Self {
        Self {
            stream,
            is_frozen,
            thawed: None,
        }
    }

    fn poll_thawed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !*self.is_frozen.borrow() {
            self.thawed = None;
            return Poll::Ready(());
        }
        let is_frozen = &self.is_frozen;
        let thawed = self.thawed.get_or_insert_with(|| {
            let mut is_frozen = is_frozen.clone();
            Box::pin(async move {
                // An error means that the server is gone, which ends the wait too.
                let _ = is_frozen.wait_for(|it| !it).await;
            })
        });
        ready!(thawed.as_mut().poll(cx));
        self.thawed = None;
        Poll::Ready(())
    }
}

impl AsyncRead for FreezableStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_thawed(cx));
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for FreezableStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_thawed(cx));
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_thawed(cx));
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_thawed(cx));
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
