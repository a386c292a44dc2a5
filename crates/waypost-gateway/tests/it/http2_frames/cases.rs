//! The cases: frames, header blocks, requests and floods.

use super::Answer::{self, Closed, Ignored, Reset, Status};
use super::frame::{
    ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GET, GOAWAY, HEADERS, PADDED, PING, PRIORITY,
    PUSH_PROMISE, RST_STREAM, SETTINGS, WINDOW_UPDATE, WITH_PRIORITY, block, exactly, field,
    fields, frame, get, increment, integer, post, setting,
};

/// A name, the answer, and what is sent.
pub(super) type Case = (&'static str, Answer, Vec<u8>);

/// RFC 9113, sections 4 to 6: frames.
pub(super) fn frames() -> Vec<Case> {
    let open = || post(&[]);
    vec![
        (
            "a frame above SETTINGS_MAX_FRAME_SIZE",
            Closed,
            frame(DATA, 0, 1, &[0; 16_385]),
        ),
        (
            "a frame of an unknown type",
            Ignored,
            frame(0xee, 0xff, 1, b"unknown"),
        ),
        (
            "a PRIORITY frame",
            Ignored,
            frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 16]),
        ),
        (
            "PRIORITY with 4 bytes",
            Closed,
            [open(), frame(PRIORITY, 0, 1, &[0; 4])].concat(),
        ),
        (
            "PRIORITY on stream 0",
            Closed,
            frame(PRIORITY, 0, 0, &[0, 0, 0, 1, 16]),
        ),
        ("DATA on stream 0", Closed, frame(DATA, 0, 0, b"x")),
        ("DATA on an idle stream", Closed, frame(DATA, 0, 5, b"x")),
        (
            "DATA after the end of the stream",
            Closed,
            [get(&[]), frame(DATA, 0, 1, b"x")].concat(),
        ),
        (
            "DATA with more padding than payload",
            Closed,
            [open(), frame(DATA, PADDED, 1, &[9, 0])].concat(),
        ),
        (
            "HEADERS on stream 0",
            Closed,
            frame(HEADERS, END_HEADERS | END_STREAM, 0, &fields(&GET)),
        ),
        (
            "HEADERS on an even stream",
            Closed,
            frame(HEADERS, END_HEADERS | END_STREAM, 2, &fields(&GET)),
        ),
        (
            "a stream below an earlier one",
            Closed,
            [
                frame(HEADERS, END_HEADERS | END_STREAM, 9, &fields(&GET)),
                get(&[]),
            ]
            .concat(),
        ),
        (
            "HEADERS with more padding than payload",
            Closed,
            frame(HEADERS, END_HEADERS | END_STREAM | PADDED, 1, &[99, 0]),
        ),
        (
            "HEADERS too short for their priority",
            Closed,
            frame(
                HEADERS,
                END_HEADERS | END_STREAM | WITH_PRIORITY,
                1,
                &[0, 0],
            ),
        ),
        (
            "HEADERS after the end of the stream",
            Closed,
            [get(&[]), get(&[])].concat(),
        ),
        (
            "a stream that depends on itself",
            Reset,
            frame(
                HEADERS,
                END_HEADERS | END_STREAM | WITH_PRIORITY,
                1,
                &[&[0, 0, 0, 1, 16], &*fields(&GET)].concat(),
            ),
        ),
        (
            "another frame within a header block",
            Closed,
            [
                frame(HEADERS, END_STREAM, 1, &fields(&GET)),
                frame(PING, 0, 0, &[0; 8]),
            ]
            .concat(),
        ),
        (
            "CONTINUATION of another stream",
            Closed,
            [
                frame(HEADERS, END_STREAM, 1, &fields(&GET)),
                frame(CONTINUATION, END_HEADERS, 3, &[]),
            ]
            .concat(),
        ),
        (
            "CONTINUATION without HEADERS",
            Closed,
            frame(CONTINUATION, END_HEADERS, 1, &fields(&GET)),
        ),
        (
            "CONTINUATION after a complete block",
            Closed,
            [get(&[]), frame(CONTINUATION, END_HEADERS, 1, &[])].concat(),
        ),
        (
            "a block in two frames",
            Status(200),
            [
                frame(HEADERS, END_STREAM, 1, &fields(&GET[..2])),
                frame(CONTINUATION, END_HEADERS, 1, &fields(&GET[2..])),
            ]
            .concat(),
        ),
        (
            "RST_STREAM on stream 0",
            Closed,
            frame(RST_STREAM, 0, 0, &[0; 4]),
        ),
        (
            "RST_STREAM on an idle stream",
            Closed,
            frame(RST_STREAM, 0, 5, &[0; 4]),
        ),
        (
            "RST_STREAM with 3 bytes",
            Closed,
            [open(), frame(RST_STREAM, 0, 1, &[0; 3])].concat(),
        ),
        ("SETTINGS on a stream", Closed, frame(SETTINGS, 0, 1, &[])),
        (
            "SETTINGS with 5 bytes",
            Closed,
            frame(SETTINGS, 0, 0, &[0; 5]),
        ),
        (
            "an acknowledgement with settings",
            Closed,
            frame(SETTINGS, ACK, 0, &[0, 1, 0, 0, 0, 1]),
        ),
        (
            "an acknowledgement of nothing",
            Closed,
            frame(SETTINGS, ACK, 0, &[]).repeat(3),
        ),
        ("SETTINGS_ENABLE_PUSH of 2", Closed, setting(2, 2)),
        (
            "SETTINGS_INITIAL_WINDOW_SIZE above the maximum",
            Closed,
            setting(4, 1 << 31),
        ),
        (
            "SETTINGS_MAX_FRAME_SIZE below the minimum",
            Closed,
            setting(5, 1),
        ),
        (
            "SETTINGS_MAX_FRAME_SIZE above the maximum",
            Closed,
            setting(5, 1 << 24),
        ),
        ("an unknown setting", Ignored, setting(0xfff0, 7)),
        (
            "PUSH_PROMISE from a client",
            Closed,
            frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2]),
        ),
        ("PING on a stream", Closed, frame(PING, 0, 1, &[0; 8])),
        ("PING with 7 bytes", Closed, frame(PING, 0, 0, &[0; 7])),
        ("GOAWAY on a stream", Closed, frame(GOAWAY, 0, 1, &[0; 8])),
        (
            "WINDOW_UPDATE with 3 bytes",
            Closed,
            frame(WINDOW_UPDATE, 0, 0, &[0; 3]),
        ),
        (
            "WINDOW_UPDATE of 0 for the connection",
            Closed,
            increment(0, 0),
        ),
        (
            "WINDOW_UPDATE of 0 for a stream",
            Closed,
            [open(), increment(1, 0)].concat(),
        ),
        ("WINDOW_UPDATE on an idle stream", Closed, increment(5, 1)),
        (
            "a window of the connection above 2^31-1",
            Closed,
            increment(0, 0x7fff_ffff),
        ),
        (
            "a window of a stream above 2^31-1",
            Reset,
            [open(), increment(1, 0x7fff_ffff)].concat(),
        ),
    ]
}

/// RFC 7541: compressed header blocks.
pub(super) fn header_blocks() -> Vec<Case> {
    vec![
        ("the index 0", Closed, block(&[0x80])),
        (
            "an index outside of the tables",
            Closed,
            block(&[0xff, 0xff, 0x03]),
        ),
        (
            "an integer above 32 bits",
            Closed,
            block(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        ),
        (
            "a string that is longer than the block",
            Closed,
            block(&[0x00, 0x7f, b'x']),
        ),
        (
            "Huffman padding with zeros",
            Closed,
            block(&[0x00, 0x81, 0x18, 0x01, b'v']),
        ),
        (
            "Huffman's end of string",
            Closed,
            block(&[0x00, 0x84, 0xff, 0xff, 0xff, 0xff, 0x01, b'v']),
        ),
        (
            "a table larger than SETTINGS_HEADER_TABLE_SIZE",
            Closed,
            frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                1,
                &[integer(0x20, 5, 1 << 20), fields(&GET)].concat(),
            ),
        ),
        (
            "a change of the table's size in the middle",
            Closed,
            block(&[0x20]),
        ),
    ]
}

/// RFC 9113, section 8: requests that are malformed.
pub(super) fn malformed_requests() -> Vec<Case> {
    let with = |name, value| get(&[(name, value)]);
    let without = |name: &str| {
        let rest: Vec<_> = GET
            .into_iter()
            .filter(|(other, _)| *other != name)
            .collect();
        exactly(&rest)
    };
    let replaced = |name: &str, value: &'static str| {
        let all = GET.map(|field| {
            if field.0 == name {
                (field.0, value)
            } else {
                field
            }
        });
        exactly(&all)
    };
    vec![
        ("a good request", Status(200), get(&[])),
        ("an upper-case name", Closed, with("X-Upper", "1")),
        ("a name with a space", Closed, with("x y", "1")),
        ("a name with a colon", Closed, with("x:y", "1")),
        ("an empty name", Closed, with("", "1")),
        ("a value with NUL", Closed, with("x", "a\0b")),
        ("a value with CR LF", Closed, with("x", "a\r\nhost: evil")),
        ("connection", Reset, with("connection", "close")),
        ("keep-alive", Reset, with("keep-alive", "timeout=5")),
        ("proxy-connection", Reset, with("proxy-connection", "close")),
        (
            "transfer-encoding",
            Reset,
            with("transfer-encoding", "chunked"),
        ),
        ("upgrade", Reset, with("upgrade", "h2c")),
        ("te other than trailers", Reset, with("te", "gzip")),
        ("te: trailers", Status(200), with("te", "trailers")),
        ("no :method", Reset, without(":method")),
        ("no :scheme", Reset, without(":scheme")),
        ("no :path", Reset, without(":path")),
        ("no :authority", Status(200), without(":authority")),
        ("an empty :path", Reset, replaced(":path", "")),
        ("a :path without a slash", Reset, replaced(":path", "echo/")),
        (
            "a URL as :path",
            Reset,
            replaced(":path", "http://evil.test/echo/"),
        ),
        (
            "a :path with a space",
            Reset,
            replaced(":path", "/echo/ HTTP/1.1"),
        ),
        (
            "a :path with CR LF",
            Reset,
            replaced(":path", "/echo/\r\nx: y"),
        ),
        (
            "a :path with dot segments",
            Status(400),
            replaced(":path", "/echo/../echo/"),
        ),
        (
            "a :method with a space",
            Closed,
            replaced(":method", "GET /x"),
        ),
        (
            "a :method that isn't known",
            Status(200),
            replaced(":method", "BREW"),
        ),
        (":method TRACE", Status(501), replaced(":method", "TRACE")),
        (
            "an :authority with user information",
            Status(400),
            replaced(":authority", "user@gw.test"),
        ),
        (
            "an :authority with a path",
            Reset,
            replaced(":authority", "gw.test/x"),
        ),
        (":path twice", Reset, with(":path", "/echo/other")),
        (":method twice", Reset, with(":method", "POST")),
        (
            "a pseudo-header that isn't known",
            Closed,
            with(":unknown", "1"),
        ),
        (":status in a request", Reset, with(":status", "200")),
        (
            "a pseudo-header after other fields",
            Reset,
            exactly(&[GET[0], GET[1], GET[2], ("x", "1"), GET[3]]),
        ),
        (
            "Host differs from :authority",
            Status(400),
            with("host", "evil.test"),
        ),
        (
            "CONNECT",
            Status(501),
            exactly(&[(":method", "CONNECT"), (":authority", "gw.test:80")]),
        ),
        ("CONNECT with :path", Reset, replaced(":method", "CONNECT")),
        (
            "a length that isn't a number",
            Reset,
            with("content-length", "x"),
        ),
        (
            "a length without a body",
            Reset,
            with("content-length", "5"),
        ),
        (
            "two lengths",
            Reset,
            [
                post(&[("content-length", "3"), ("content-length", "4")]),
                frame(DATA, END_STREAM, 1, b"abc"),
            ]
            .concat(),
        ),
        (
            "a body that is shorter than its length",
            Reset,
            [
                post(&[("content-length", "5")]),
                frame(DATA, END_STREAM, 1, b"abc"),
            ]
            .concat(),
        ),
        (
            "a body that is longer than its length",
            Reset,
            [
                post(&[("content-length", "3")]),
                frame(DATA, END_STREAM, 1, b"abcde"),
            ]
            .concat(),
        ),
        (
            "a body of its length",
            Status(200),
            [
                post(&[("content-length", "3")]),
                frame(DATA, END_STREAM, 1, b"abc"),
            ]
            .concat(),
        ),
        (
            "trailers that don't end the stream",
            Reset,
            [post(&[]), frame(HEADERS, END_HEADERS, 1, &field("x", "1"))].concat(),
        ),
        (
            "trailers with a pseudo-header, which is dropped",
            Status(200),
            [
                post(&[]),
                frame(HEADERS, END_HEADERS | END_STREAM, 1, &field(":path", "/x")),
            ]
            .concat(),
        ),
    ]
}

/// Attacks on memory and processor time.
pub(super) fn floods() -> Vec<Case> {
    let big = "x".repeat(4000);
    // Adds a field of 4 kB to the table, then refers to it.
    let mut bomb = vec![0x40];
    for text in ["bomb", &big] {
        bomb.extend(integer(0, 7, text.len()));
        bomb.extend(text.as_bytes());
    }
    bomb.extend([0xbe].repeat(10_000));
    let started = frame(HEADERS, END_STREAM, 1, &fields(&GET));
    let large = frame(CONTINUATION, 0, 1, &field("x", &"x".repeat(16_000)));
    let reset_at_once = (0..5_000).flat_map(|n| {
        let stream = 2 * n + 1;
        let request = frame(HEADERS, END_HEADERS | END_STREAM, stream, &fields(&GET));
        [request, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
    });
    let made_wrong = (0..5_000).flat_map(|n| {
        let stream = 2 * n + 1;
        let request = frame(HEADERS, END_HEADERS, stream, &fields(&GET));
        [request, increment(stream, 0)].concat()
    });
    vec![
        (
            "a header block that decompresses to 40 MB",
            Closed,
            block(&bomb),
        ),
        (
            "endless CONTINUATION frames",
            Closed,
            [started.clone(), large.repeat(200)].concat(),
        ),
        (
            "endless empty CONTINUATION frames",
            Closed,
            [started, frame(CONTINUATION, 0, 1, &[]).repeat(100_000)].concat(),
        ),
        (
            "requests that are reset at once",
            Closed,
            reset_at_once.collect(),
        ),
        (
            "requests that make the server reset them",
            Closed,
            made_wrong.collect(),
        ),
        ("many settings", Ignored, setting(4, 70_000).repeat(10_000)),
        (
            "many pings",
            Ignored,
            frame(PING, 0, 0, &[1; 8]).repeat(10_000),
        ),
        (
            "many priorities",
            Ignored,
            frame(PRIORITY, 0, 3, &[0, 0, 0, 1, 16]).repeat(10_000),
        ),
        (
            "many empty DATA frames",
            Closed,
            [
                post(&[]),
                frame(DATA, 0, 1, &[]).repeat(10_000),
                frame(DATA, END_STREAM, 1, b"x"),
            ]
            .concat(),
        ),
        (
            "more DATA than the window",
            Closed,
            [post(&[]), frame(DATA, 0, 1, &[0; 16_384]).repeat(600)].concat(),
        ),
    ]
}
