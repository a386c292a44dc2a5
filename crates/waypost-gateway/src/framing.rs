//! Refuses requests whose end could be read in two ways.
//!
//! A request with both `Content-Length` and `Transfer-Encoding` is how a request is smuggled past
//! a proxy (RFC 9112, section 6.3). The HTTP library resolves it as the RFC allows: it forgets the
//! length. That is safe, since every request we send on is framed anew, but it hides the attempt.
//! So the bytes of a connection are looked at on their way in, with the library's own parser, and
//! the connection is marked; whoever sends such a thing is not served on it.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// As many header lines as the HTTP library takes; beyond, it answers 431 by itself.
const MAX_HEADERS: usize = 100;
/// A request head may have this many bytes.
pub(crate) const MAX_HEAD: usize = 64 * 1024;

/// Whether a connection has carried an ambiguous request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ambiguous(Arc<AtomicBool>);

impl Ambiguous {
    pub(crate) fn was_seen(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A connection whose incoming requests are looked at.
pub(crate) struct Inspected<S> {
    stream: S,
    framing: Framing,
}

impl<S> Inspected<S> {
    pub(crate) fn new(stream: S) -> (Self, Ambiguous) {
        let ambiguous = Ambiguous::default();
        let framing = Framing {
            next: Next::Head,
            held: Vec::new(),
            ambiguous: ambiguous.clone(),
        };
        (Self { stream, framing }, ambiguous)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Inspected<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let outcome = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Some(new) = buf.filled().get(before..) {
            self.framing.follow(new);
        }
        outcome
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Inspected<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Follows one connection from head to head.
struct Framing {
    next: Next,
    /// The beginning of a head, or of a line, that has not come whole yet.
    held: Vec<u8>,
    ambiguous: Ambiguous,
}

/// What the next byte belongs to.
enum Next {
    Head,
    Body(u64),
    ChunkSize,
    Chunk(u64),
    Trailer,
    /// The library refuses what came, or it is no HTTP any more: there is nothing to follow.
    Nothing,
}

impl Framing {
    fn follow(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            bytes = match self.next {
                Next::Head => self.head(bytes),
                Next::Body(left) => self.skip(bytes, left, Next::Body, Next::Head),
                Next::Chunk(left) => self.skip(bytes, left, Next::Chunk, Next::ChunkSize),
                Next::ChunkSize | Next::Trailer => self.line(bytes),
                Next::Nothing => return,
            };
        }
    }

    fn head<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let held = self.held.len();
        let parsed = if !bytes.contains(&b'\n') {
            // Only a line's end can complete a head; without one there is nothing to parse again.
            self.held.extend_from_slice(bytes);
            Head::Partial
        } else if held == 0 {
            let parsed = parse_head(bytes);
            if matches!(parsed, Head::Partial) {
                self.held.extend_from_slice(bytes);
            }
            parsed
        } else {
            self.held.extend_from_slice(bytes);
            parse_head(&self.held)
        };
        match parsed {
            Head::Whole {
                length,
                body,
                ambiguous,
            } => {
                if ambiguous {
                    self.ambiguous.0.store(true, Ordering::Relaxed);
                }
                self.next = body;
                self.held.clear();
                bytes.get(length.saturating_sub(held)..).unwrap_or_default()
            }
            Head::Partial if self.held.len() <= MAX_HEAD => &[],
            Head::Partial | Head::Refused => self.stop(),
        }
    }

    fn skip<'a>(
        &mut self,
        bytes: &'a [u8],
        left: u64,
        same: fn(u64) -> Next,
        then: Next,
    ) -> &'a [u8] {
        let here = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        self.next = if left == here as u64 {
            then
        } else {
            same(left - here as u64)
        };
        bytes.get(here..).unwrap_or_default()
    }

    /// A chunk's size, or a trailer.
    fn line<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
            if self.held.len() + bytes.len() > MAX_HEAD {
                return self.stop();
            }
            self.held.extend_from_slice(bytes);
            return &[];
        };
        let (line, rest) = bytes.split_at(end + 1);
        self.held.extend_from_slice(line);
        self.next = match (&self.next, self.held.as_slice()) {
            (Next::Trailer, b"\r\n") => Next::Head,
            (Next::Trailer, _) => Next::Trailer,
            (_, line) => match chunk_size(line) {
                Some(0) => Next::Trailer,
                // The line end after the data belongs to the chunk.
                Some(size) => Next::Chunk(size.saturating_add(2)),
                None => Next::Nothing,
            },
        };
        self.held.clear();
        rest
    }

    fn stop(&mut self) -> &'static [u8] {
        self.next = Next::Nothing;
        self.held = Vec::new();
        &[]
    }
}

enum Head {
    Whole {
        length: usize,
        body: Next,
        ambiguous: bool,
    },
    Partial,
    Refused,
}

fn parse_head(bytes: &[u8]) -> Head {
    let mut headers = [const { MaybeUninit::uninit() }; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut []);
    let length = match request.parse_with_uninit_headers(bytes, &mut headers) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Head::Partial,
        Err(_) => return Head::Refused,
    };
    let (mut declared, mut chunked) = (None, false);
    for header in request.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            declared = Some(header.value);
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            chunked = true;
        }
    }
    let body = match declared {
        _ if chunked => Next::ChunkSize,
        None => Next::Head,
        Some(digits) => match std::str::from_utf8(digits)
            .ok()
            .and_then(|text| text.parse().ok())
        {
            Some(0) => Next::Head,
            Some(length) => Next::Body(length),
            None => Next::Nothing,
        },
    };
    Head::Whole {
        length,
        body,
        ambiguous: chunked && declared.is_some(),
    }
}

fn chunk_size(line: &[u8]) -> Option<u64> {
    let digits = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    let digits = std::str::from_utf8(line.get(..digits)?).ok()?;
    u64::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const SIZED: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /";
    const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                           5;x=y\r\nhello\r\nA\r\n0123456789\r\n0\r\nDigest: z\r\n\r\n";
    const BOTH: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\
                        Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n";

    /// Whether the bytes are found ambiguous, told in pieces of `step` bytes.
    fn ambiguous(bytes: &str, step: usize) -> bool {
        let (mut inspected, ambiguous) = Inspected::new(());
        for piece in bytes.as_bytes().chunks(step) {
            inspected.framing.follow(piece);
        }
        ambiguous.was_seen()
    }

    #[test]
    fn both_framings_are_seen_after_any_request_and_in_any_pieces() {
        for before in ["", PLAIN, SIZED, CHUNKED, &[SIZED, CHUNKED, PLAIN].concat()] {
            for step in [1, 2, 3, 7, 1 << 20] {
                assert!(
                    ambiguous(&[before, BOTH].concat(), step),
                    "{before:?} by {step}"
                );
                assert!(
                    !ambiguous(&[before, PLAIN].concat(), step),
                    "{before:?} by {step}"
                );
            }
        }
    }

    #[test]
    fn a_body_that_looks_like_a_head_is_a_body() {
        let request = format!(
            "POST / HTTP/1.1\r\nContent-Length: {}\r\n\r\n{BOTH}",
            BOTH.len()
        );
        assert!(!ambiguous(&request, 1 << 20));
        let chunk = format!(
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{BOTH}\r\n0\r\n\r\n",
            BOTH.len()
        );
        assert!(!ambiguous(&chunk, 10));
    }

    #[test]
    fn what_is_no_http_is_not_followed_or_kept() {
        for garbage in ["\x16\x03\x01", "GET / HTTP/9\r\n\r\n", "zz\r\n"] {
            let (mut inspected, ambiguous) = Inspected::new(());
            inspected.framing.follow(garbage.as_bytes());
            inspected.framing.follow(BOTH.as_bytes());
            assert!(!ambiguous.was_seen(), "{garbage:?}");
        }
        let (mut inspected, _) = Inspected::new(());
        for _ in 0..3 * MAX_HEAD {
            inspected.framing.follow(b"G");
        }
        assert!(inspected.framing.held.is_empty());
    }
}
