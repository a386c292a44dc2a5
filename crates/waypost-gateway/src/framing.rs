//! Detects requests whose framing hyper accepts and other servers may read differently: those that have both
//! `Content-Length` and `Transfer-Encoding`, and those whose lines end with a line feed alone.
//!
//! hyper alone decides where a request ends, and it rejects all other ambiguous framing. It resolves a
//! conflict of both fields as RFC 9112, section 6.3, permits: it drops the length, reads the chunks and closes
//! the connection after the response. So a second request can't be smuggled in, but a body can: a
//! filter in front of the gateway that uses the length inspects different bytes than the service
//! receives. Likewise, section 2.2 lets a recipient accept a line feed alone as the end of a line, and a filter
//! in front may take it for a part of the line. Therefore both are rejected. hyper's header map shows neither,
//! so the bytes of the connection are scanned.

use std::mem::take;
use std::sync::{Arc, OnceLock};

use crate::target::InvalidRequest;

/// The maximum size of a request head in bytes.
pub(crate) const MAX_HEAD: usize = 64 * 1024;
/// The number of bytes of a line that are looked at. The lines that matter are shorter; keeping more
/// would double the memory that an unfinished head takes.
const MAX_LINE: usize = 256;
const CONTENT_LENGTH: &[u8] = b"content-length";

/// The first fault in the framing of a connection's requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct FramingFault(Arc<OnceLock<InvalidRequest>>);

impl FramingFault {
    pub(crate) fn get(&self) -> Option<InvalidRequest> {
        self.0.get().copied()
    }

    fn report(&self, fault: InvalidRequest) {
        let _ = self.0.set(fault);
    }
}

/// Reads the lines of request heads and skips bodies. Stops at the first fault, or at the first line that hyper
/// rejects as well: no further request of the connection is served then.
#[derive(Default)]
pub(crate) struct Scanner {
    fault: FramingFault,
    /// The part of the request that the next line belongs to.
    part: Part,
    /// The number of body bytes before the next line.
    skip: u64,
    /// The beginning of a line whose end has not been received yet, at most [`MAX_LINE`] bytes.
    partial: Vec<u8>,
    /// Whether more of that line has been received than is kept.
    is_cut: bool,
    /// Whether the last byte of that line so far is CR.
    ends_with_cr: bool,
    /// Whether empty lines have been received before the next request. hyper buffers them until it begins.
    is_after_blank: bool,
}

#[derive(Default)]
enum Part {
    #[default]
    RequestLine,
    /// With the `Content-Length` so far, and whether there is a `Transfer-Encoding`.
    Headers(Option<u64>, bool),
    ChunkSize,
    Trailers,
    Malformed,
}

impl Scanner {
    pub(crate) fn fault(&self) -> &FramingFault {
        &self.fault
    }

    /// Whether a part of a request's head has been received.
    pub(crate) fn is_in_head(&self) -> bool {
        match self.part {
            Part::RequestLine => self.skip == 0 && !self.partial.is_empty(),
            Part::Headers(..) => true,
            _ => false,
        }
    }

    /// Whether all that has been received belongs to complete requests.
    pub(crate) fn is_between_requests(&self) -> bool {
        let is_first_line = matches!(self.part, Part::RequestLine) && !self.is_after_blank;
        is_first_line && self.skip == 0 && self.partial.is_empty()
    }

    pub(crate) fn scan(&mut self, mut bytes: &[u8]) {
        while !matches!(self.part, Part::Malformed) {
            let body = bytes.len().min(self.skip.try_into().unwrap_or(usize::MAX));
            self.skip -= body as u64;
            let (_, rest) = bytes.split_at(body);
            let Some(end) = memchr::memchr(b'\n', rest) else {
                self.keep(rest);
                return;
            };
            let (line, rest) = rest.split_at(end + 1);
            bytes = rest;
            let has_cr = match line {
                [.., last, _] => *last == b'\r',
                _ => self.ends_with_cr && !self.partial.is_empty(),
            };
            if !has_cr && matches!(self.part, Part::RequestLine | Part::Headers(..)) {
                self.fault.report(InvalidRequest::BareLineFeed);
                self.part = Part::Malformed;
            } else if self.partial.is_empty() {
                let kept = line.get(..MAX_LINE).unwrap_or(line);
                self.read_line(kept, kept.len() < line.len());
            } else {
                self.keep(line);
                let whole = take(&mut self.partial);
                let is_cut = take(&mut self.is_cut);
                self.read_line(&whole, is_cut);
            }
        }
    }

    /// Adds to the partial line.
    fn keep(&mut self, bytes: &[u8]) {
        let free = MAX_LINE - self.partial.len();
        let kept = bytes.get(..free);
        self.is_cut |= kept.is_some_and(|kept| kept.len() < bytes.len());
        if let Some(last) = bytes.last() {
            self.ends_with_cr = *last == b'\r';
        }
        self.partial.extend_from_slice(kept.unwrap_or(bytes));
    }

    /// Reads a line. `is_cut`: only the beginning of it was kept.
    fn read_line(&mut self, line: &[u8], is_cut: bool) {
        let line = line.trim_ascii();
        if is_cut && self.is_number_cut(line) {
            // hyper accepts numbers with this many zeros.
            self.fault.report(InvalidRequest::AmbiguousLength);
            self.part = Part::Malformed;
            return;
        }
        let is_empty = line.is_empty() && !is_cut;
        self.part = self.after(line, is_empty).unwrap_or(Part::Malformed);
    }

    /// Whether the number that a long line contains may be incomplete.
    fn is_number_cut(&self, line: &[u8]) -> bool {
        match self.part {
            Part::Headers(..) => {
                let mut parts = line.split(|byte| *byte == b':');
                let name = parts.next().unwrap_or_default();
                name.eq_ignore_ascii_case(CONTENT_LENGTH)
            }
            Part::ChunkSize => line.iter().all(u8::is_ascii_hexdigit),
            _ => false,
        }
    }

    /// Returns the part that the next line belongs to, or `None` if this one is malformed.
    fn after(&mut self, line: &[u8], is_empty: bool) -> Option<Part> {
        Some(match self.part {
            Part::RequestLine => {
                self.is_after_blank = is_empty;
                if is_empty {
                    Part::RequestLine
                } else {
                    Part::Headers(None, false)
                }
            }
            Part::Headers(length, true) if is_empty => {
                if length.is_some() {
                    self.fault.report(InvalidRequest::AmbiguousLength);
                }
                Part::ChunkSize
            }
            Part::Headers(length, false) if is_empty => {
                self.skip = length.unwrap_or(0);
                Part::RequestLine
            }
            Part::Headers(length, chunked) => {
                let colon = line.iter().position(|&byte| byte == b':')?;
                let (name, value) = (line.get(..colon)?, line.get(colon + 1..)?);
                if name.eq_ignore_ascii_case(CONTENT_LENGTH) {
                    // hyper rejects an invalid length, except after `Transfer-Encoding`.
                    let length = number(value.trim_ascii_start(), 10).unwrap_or(0);
                    Part::Headers(Some(length), chunked)
                } else {
                    let is_coding = name.eq_ignore_ascii_case(b"transfer-encoding");
                    Part::Headers(length, chunked || is_coding)
                }
            }
            Part::ChunkSize => {
                let is_digit = |byte: &&u8| byte.is_ascii_hexdigit();
                let digits = line.iter().take_while(is_digit).count();
                match number(line.get(..digits)?, 16)? {
                    0 => Part::Trailers,
                    size => {
                        // The line break after the data belongs to the chunk.
                        self.skip = size.checked_add(2)?;
                        Part::ChunkSize
                    }
                }
            }
            Part::Trailers if is_empty => Part::RequestLine,
            Part::Trailers => Part::Trailers,
            Part::Malformed => return None,
        })
    }
}

fn number(digits: &[u8], radix: u32) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(digits).ok()?, radix).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    const SIZED: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nGET /";
    const CHUNKED: &str = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n\
                           5;x=y\r\nhello\r\nA\r\n0123456789\r\n0\r\nDigest: z\r\n\r\n";
    const CONFLICT: &str = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\
                            Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n";

    /// Scans the bytes in pieces of `step` bytes.
    fn has_conflict(bytes: &str, step: usize) -> bool {
        let mut scanner = Scanner::default();
        for piece in bytes.as_bytes().chunks(step) {
            scanner.scan(piece);
        }
        scanner.fault.get() == Some(InvalidRequest::AmbiguousLength)
    }

    #[test]
    fn a_conflict_is_detected_after_any_requests_and_in_pieces_of_any_size() {
        for before in ["", PLAIN, SIZED, CHUNKED, &[SIZED, CHUNKED, PLAIN].concat()] {
            for step in [1, 2, 3, 7, 1 << 20] {
                let conflict = [before, CONFLICT].concat();
                assert!(has_conflict(&conflict, step), "{before:?} by {step}");
                let good = [before, PLAIN].concat();
                assert!(!has_conflict(&good, step), "{before:?} by {step}");
            }
        }
    }

    #[test]
    fn a_conflict_is_detected_in_either_order_and_after_empty_lines() {
        let reversed = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\
                        Content-Length: 5\r\nHost: a\r\n\r\n0\r\n\r\n";
        for step in [1, 3, 1 << 20] {
            assert!(has_conflict(reversed, step), "by {step}");
            assert!(has_conflict(&["\r\n", CONFLICT].concat(), step));
        }
    }

    #[test]
    fn a_bare_line_feed_is_detected_in_the_head_of_any_request() {
        let long = "x".repeat(MAX_LINE);
        for head in [
            "GET / HTTP/1.1\nHost: a\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\nA: b\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: a\r\n\n",
            "\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            &format!("GET / HTTP/1.1\r\nA: {long}\nHost: a\r\n\r\n"),
        ] {
            for before in ["", PLAIN, SIZED, CHUNKED] {
                for step in [1, 2, 3, 7, 1 << 20] {
                    let mut scanner = Scanner::default();
                    let request = [before, head].concat();
                    for piece in request.as_bytes().chunks(step) {
                        scanner.scan(piece);
                    }
                    let found = scanner.fault.get();
                    assert_eq!(
                        found,
                        Some(InvalidRequest::BareLineFeed),
                        "{request:?} by {step}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_line_feed_in_a_body_is_no_fault() {
        let sized = "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\na\nb";
        let chunked = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\na\nb\r\n0\r\n\r\n";
        for step in [1, 2, 1 << 20] {
            let mut scanner = Scanner::default();
            for piece in [sized, chunked, PLAIN].concat().as_bytes().chunks(step) {
                scanner.scan(piece);
            }
            assert_eq!(scanner.fault.get(), None, "by {step}");
        }
    }

    #[test]
    fn trailers_are_no_headers() {
        let trailers = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\
                        A: 1\r\nB: 2\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n";
        assert!(!has_conflict(&[trailers, PLAIN].concat(), 1 << 20));
        assert!(has_conflict(&[trailers, CONFLICT].concat(), 1 << 20));
    }

    #[test]
    fn a_body_that_looks_like_a_conflict_is_skipped() {
        let length = CONFLICT.len();
        let sized = format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{CONFLICT}");
        let chunked = format!(
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n\
             {length:x}\r\n{CONFLICT}\r\n0\r\n\r\n"
        );
        for request in [sized, chunked] {
            for step in [1, 10, 1 << 20] {
                assert!(!has_conflict(&request, step), "{request:?} by {step}");
            }
        }
    }

    #[test]
    fn nothing_is_scanned_after_a_malformed_line() {
        for malformed in [
            "\x16\x03\x01\r\nzz\r\n",
            "GET / HTTP/1.1\r\nno colon\r\n\r\n",
            "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        ] {
            let request = [malformed, CONFLICT].concat();
            assert!(!has_conflict(&request, 1 << 20), "{malformed:?}");
        }
    }

    #[test]
    fn an_endless_line_is_not_buffered() {
        let mut scanner = Scanner::default();
        for _ in 0..3 * MAX_HEAD {
            scanner.scan(b"G");
        }
        assert!(scanner.partial.capacity() <= MAX_LINE);
    }

    #[test]
    fn a_line_that_just_fits_is_read_alike_in_one_piece_and_in_many() {
        for (length, conflict) in [(MAX_LINE, false), (MAX_LINE + 1, true)] {
            let zeros = "0".repeat(length - "Content-Length:5\r\n".len());
            let request = format!("POST / HTTP/1.1\r\nContent-Length:{zeros}5\r\n\r\nhello");
            for step in [1, 100, 1 << 20] {
                let found = has_conflict(&request, step);
                assert_eq!(found, conflict, "{length} by {step}");
            }
        }
    }

    #[test]
    fn the_end_of_a_long_line_is_found_and_a_long_number_is_a_conflict() {
        let long = "x".repeat(1000);
        let zeros = "0".repeat(1000);
        let header = format!("POST /{long} HTTP/1.1\r\nX: {long}\r\n");
        let conflict = format!("{header}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n");
        let chunks = format!(
            "{header}Transfer-Encoding: chunked\r\n\r\n5;{long}\r\nhello\r\n0\r\n{long}: 1\r\n\r\n"
        );
        let length = format!("{header}Content-Length: {zeros}5\r\n\r\nhello");
        let size = format!("{header}Transfer-Encoding: chunked\r\n\r\n{zeros}5\r\nhello");
        for step in [1, 100, 1 << 20] {
            assert!(has_conflict(&conflict, step), "by {step}");
            assert!(
                !has_conflict(&[&*chunks, PLAIN].concat(), step),
                "by {step}"
            );
            assert!(
                has_conflict(&[&*chunks, CONFLICT].concat(), step),
                "by {step}"
            );
            assert!(has_conflict(&length, step), "by {step}");
            assert!(has_conflict(&size, step), "by {step}");
        }
    }
}
