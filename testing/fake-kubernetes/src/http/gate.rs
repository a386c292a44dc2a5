//! A connection that can be frozen, as that of a process that was stopped.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// A connection behind a gate: while it is shut, not a byte goes in or out, and nothing fails.
pub(crate) struct Gated {
    stream: TcpStream,
    shut: watch::Receiver<bool>,
    opened: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Gated {
    pub(crate) fn new(stream: TcpStream, shut: watch::Receiver<bool>) -> Self {
        Self {
            stream,
            shut,
            opened: None,
        }
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if !*self.shut.borrow() {
            self.opened = None;
            return Poll::Ready(());
        }
        let shut = &self.shut;
        let opened = self.opened.get_or_insert_with(|| {
            let mut shut = shut.clone();
            Box::pin(async move {
                // The server's end opens all gates too.
                let _ = shut.wait_for(|shut| !shut).await;
            })
        });
        let polled = opened.as_mut().poll(cx);
        if polled.is_ready() {
            self.opened = None;
        }
        polled
    }
}

macro_rules! when_open {
    ($self:ident, $cx:ident) => {
        if $self.poll_open($cx).is_pending() {
            return Poll::Pending;
        }
    };
}

impl AsyncRead for Gated {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        when_open!(self, cx);
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Gated {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        when_open!(self, cx);
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        when_open!(self, cx);
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        when_open!(self, cx);
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
