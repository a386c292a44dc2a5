//! Percent-encodes characters that RFC 3986 forbids in a request line, before hyper parses it.
//! `curl 'localhost:8500/v1/kv/été'` sends them as they are, and Consul accepts them.

use percent_encoding::{AsciiSet, percent_encode};

/// The ASCII characters that are encoded. Bytes that aren't ASCII are encoded as well.
const INVALID: &AsciiSet = &AsciiSet::EMPTY.add(b'"').add(b'<').add(b'>').add(b'`');

/// The received bytes with the request line encoded. `received` begins with a request line. `None`
/// if the line contains only valid characters.
pub(super) fn percent_encoded(received: &[u8]) -> Option<Vec<u8>> {
    // A fast path for the usual case. Without a branch per byte the compiler vectorizes it.
    if !received
        .iter()
        .fold(false, |invalid, byte| invalid | is_invalid(*byte))
    {
        return None;
    }
    let end = received.iter().position(|byte| *byte == b'\n');
    let (line, rest) = received.split_at(end.unwrap_or(received.len()));
    if !line.iter().any(|byte| is_invalid(*byte)) {
        return None;
    }
    let mut encoded = Vec::with_capacity(received.len() + 2 * line.len());
    for part in percent_encode(line, INVALID) {
        encoded.extend_from_slice(part.as_bytes());
    }
    encoded.extend_from_slice(rest);
    Some(encoded)
}

fn is_invalid(byte: u8) -> bool {
    !byte.is_ascii() | (byte == b'"') | (byte == b'<') | (byte == b'>') | (byte == b'`')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_request_line_is_encoded() {
        for (received, expected) in [
            ("GET /v1/kv/a HTTP/1.1\r\nA: \"é\"\r\n\r\n", None),
            ("PUT /v1/kv/a HTTP/1.1\r\n\r\n{\"a\":1}", None),
            (
                "GET /v1/kv/é?x=\"<a>` HTTP/1.1\r\nA: \"\r\n",
                Some("GET /v1/kv/%C3%A9?x=%22%3Ca%3E%60 HTTP/1.1\r\nA: \"\r\n"),
            ),
            ("GET /é", Some("GET /%C3%A9")),
        ] {
            let encoded = percent_encoded(received.as_bytes());
            assert_eq!(
                encoded.as_deref(),
                expected.map(str::as_bytes),
                "{received}"
            );
        }
    }
}
