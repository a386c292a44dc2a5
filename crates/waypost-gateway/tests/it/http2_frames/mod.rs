//! A corpus of HTTP/2 frames that break RFC 9113 or are meant to exhaust a server, with the answer that
//! each gets. It covers the sections that h2spec covers.
//!
//! Each case is sent on a connection of its own after the preface and an empty SETTINGS frame, and is
//! followed by a good request. Only well-formed requests may reach the instance. Where the RFCs demand a
//! stream error, a server may close the connection instead (RFC 9113, section 5.4.1).

mod cases;
mod frame;

use std::collections::BTreeMap;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use self::Answer::{Closed, Ignored, Reset, Status};
use self::cases::{Case, floods, frames, header_blocks, malformed_requests};
use self::frame::{
    END_HEADERS, END_STREAM, GET, GOAWAY, HEADERS, LAST, RST_STREAM, SETTINGS, fields, frame,
};
use crate::support::{Origin, TestGateway, with_deadline};

/// The answer to a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    /// The connection ends.
    Closed,
    /// The request's stream is reset; the connection stays usable.
    Reset,
    /// The request gets this status; the connection stays usable.
    Status(u16),
    /// Nothing is answered; the connection stays usable.
    Ignored,
}

/// The responses on one connection.
#[derive(Debug, Default)]
struct Observed {
    /// The status or reset of each stream; 0 is a reset.
    streams: BTreeMap<u32, u16>,
    /// The connection has ended, or the server has announced an error.
    is_closed: bool,
}

impl Observed {
    fn is_complete(&self, expected: Answer) -> bool {
        let has_first = matches!(expected, Closed | Ignored) || self.streams.contains_key(&1);
        self.is_closed || (has_first && self.streams.contains_key(&LAST))
    }

    fn answer(&self) -> Answer {
        match self.streams.get(&1) {
            _ if self.is_closed => Closed,
            Some(0) => Reset,
            Some(status) => Status(*status),
            None => Ignored,
        }
    }
}

/// Sends a case and a good request, and reads until the answer is complete.
async fn observe(gateway: &TestGateway, expected: Answer, case: &[u8]) -> Observed {
    let last = frame(HEADERS, END_HEADERS | END_STREAM, LAST, &fields(&GET));
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let sent = [preface, frame(SETTINGS, 0, 0, &[]), case.to_vec(), last].concat();
    let stream = TcpStream::connect(gateway.address)
        .await
        .expect("a connection");
    let (mut reading, mut writing) = stream.into_split();
    // The gateway may close the connection before it has read everything.
    let writer = tokio::spawn(async move {
        let _ = writing.write_all(&sent).await;
        writing
    });
    let mut observed = Observed::default();
    while !observed.is_complete(expected) {
        let mut head = [0; 9];
        if reading.read_exact(&mut head).await.is_err() {
            observed.is_closed = true;
            break;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        let mut payload = vec![0; length as usize];
        if reading.read_exact(&mut payload).await.is_err() {
            observed.is_closed = true;
            break;
        }
        match head[3] {
            HEADERS => drop(observed.streams.entry(stream).or_insert(status(&payload))),
            RST_STREAM => drop(observed.streams.insert(stream, 0)),
            // Without an error, it only announces the end of the connection.
            GOAWAY => observed.is_closed |= payload[4..8] != [0; 4],
            _ => {}
        }
    }
    writer.abort();
    observed
}

/// The status at the beginning of a header block.
fn status(block: &[u8]) -> u16 {
    match block {
        [0x88, ..] => 200,
        [0x8c, ..] => 400,
        [0x8d, ..] => 404,
        [0x8e, ..] => 500,
        // A literal with an indexed name, encoded by Huffman's code of digits.
        [0x48 | 0x08, length, digits @ ..] if length & 0x80 != 0 => {
            let bits: Vec<u8> = digits
                .iter()
                .take(usize::from(length & 0x7f))
                .flat_map(|byte| (0..8).rev().map(move |bit| byte >> bit & 1))
                .collect();
            let (mut number, mut at) = (0, 0);
            for _ in 0..3 {
                let take = |count: usize| {
                    bits[at..at + count]
                        .iter()
                        .fold(0, |sum, bit| sum * 2 + u16::from(*bit))
                };
                let (digit, length) = match take(5) {
                    short @ 0..=2 => (short, 5),
                    _ => (take(6) - 25 + 3, 6),
                };
                number = number * 10 + digit;
                at += length;
            }
            number
        }
        [0x48 | 0x08, 3, digits @ ..] => digits[..3]
            .iter()
            .fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0')),
        other => panic!(
            "a block that begins with {:x?}",
            &other[..other.len().min(8)]
        ),
    }
}

async fn check(cases: Vec<Case>) {
    let gateway = TestGateway::start().await;
    let origin = Origin::echo().await;
    gateway.add("echo", "e", origin.address).await;
    let mut wrong = Vec::new();
    for (name, expected, bytes) in cases {
        let observed = with_deadline(name, observe(&gateway, expected, &bytes)).await;
        if observed.answer() != expected {
            wrong.push(format!("{name}: {expected:?} expected, {observed:?}"));
        }
        // The gateway still serves others.
        let after = gateway.get("/echo/").await;
        assert_eq!(after.status, 200, "after {name}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn frames_that_break_the_protocol() {
    check(frames()).await;
}

#[tokio::test]
async fn header_blocks_that_cannot_be_decompressed() {
    check(header_blocks()).await;
}

#[tokio::test]
async fn malformed_requests_never_reach_the_instance() {
    let cases = malformed_requests();
    let gateway = TestGateway::start().await;
    let origin = Origin::echo().await;
    gateway.add("echo", "e", origin.address).await;
    let mut wrong = Vec::new();
    for (name, expected, bytes) in cases {
        let before = origin.requests();
        let observed = with_deadline(name, observe(&gateway, expected, &bytes)).await;
        if observed.answer() != expected {
            wrong.push(format!("{name}: {expected:?} expected, {observed:?}"));
        }
        // The good request that follows, and the case itself if it is one.
        let passed = origin.requests() - before;
        let allowed = 1 + usize::from(expected == Status(200));
        if passed > allowed {
            wrong.push(format!("{name}: {passed} requests reached the instance"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn floods_are_answered_or_end_the_connection() {
    check(floods()).await;
}
