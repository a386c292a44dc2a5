//! What people type into a request line, such as `curl 'localhost:8500/v1/kv/été'`: clients send it
//! as it is, and Consul takes it, though a URI may not hold it (RFC 3986). It is percent-encoded
//! before the line is read.

use percent_encoding::{AsciiSet, percent_encode};

/// What may not be in a request line, besides what isn't ASCII.
const ODD: &AsciiSet = &AsciiSet::EMPTY.add(b'"').add(b'<').add(b'>').add(b'`');

/// The received bytes, which begin with a request line, if that had to be mended.
pub(super) fn mended(received: &[u8]) -> Option<Vec<u8>> {
    // Nearly always there is nothing to do, and without a branch this takes next to no time.
    if !received.iter().fold(false, |odd, byte| odd | is_odd(*byte)) {
        return None;
    }
    let end = received.iter().position(|byte| *byte == b'\n');
    let (line, rest) = received.split_at(end.unwrap_or(received.len()));
    if !line.iter().any(|byte| is_odd(*byte)) {
        return None;
    }
    let mut mended = Vec::with_capacity(received.len() + 2 * line.len());
    for part in percent_encode(line, ODD) {
        mended.extend_from_slice(part.as_bytes());
    }
    mended.extend_from_slice(rest);
    Some(mended)
}

fn is_odd(byte: u8) -> bool {
    !byte.is_ascii() | (byte == b'"') | (byte == b'<') | (byte == b'>') | (byte == b'`')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_line_is_mended() {
        for (received, expected) in [
            ("GET /v1/kv/a HTTP/1.1\r\nA: \"é\"\r\n\r\n", None),
            ("PUT /v1/kv/a HTTP/1.1\r\n\r\n{\"a\":1}", None),
            (
                "GET /v1/kv/é?x=\"<a>` HTTP/1.1\r\nA: \"\r\n",
                Some("GET /v1/kv/%C3%A9?x=%22%3Ca%3E%60 HTTP/1.1\r\nA: \"\r\n"),
            ),
            ("GET /é", Some("GET /%C3%A9")),
        ] {
            let mended = mended(received.as_bytes());
            assert_eq!(mended.as_deref(), expected.map(str::as_bytes), "{received}");
        }
    }
}
