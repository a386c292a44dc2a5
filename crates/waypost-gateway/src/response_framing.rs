//! Ensures that the client and the gateway agree on where an instance's response ends.

use http::header::{self, HeaderMap, HeaderValue};

use crate::headers;

/// Removes a length if there is also a transfer coding (RFC 9112, section 6.3), and repetitions of a length.
/// Returns false if the end of the response is still ambiguous.
///
/// hyper reads any codings that end in `chunked`. A coding before it, such as `gzip`, would be lost,
/// since the response is framed anew.
pub(crate) fn disambiguate(headers: &mut HeaderMap) -> bool {
    let is_coded = headers::has(headers, &header::TRANSFER_ENCODING);
    if is_coded && !is_chunked_only(headers) {
        return false;
    }
    let mut lines = headers.get_all(header::CONTENT_LENGTH).iter();
    let length = match (lines.next(), lines.next()) {
        (None, _) => return true,
        (Some(line), None) if !is_coded && is_number(line.as_bytes()) => return true,
        _ => common_length(headers),
    };
    match length {
        None => return false,
        Some(_) if is_coded => drop(headers.remove(header::CONTENT_LENGTH)),
        Some(length) => drop(headers.insert(header::CONTENT_LENGTH, length)),
    }
    true
}

fn is_chunked_only(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let is_chunked = |coding: &HeaderValue| coding.as_bytes().eq_ignore_ascii_case(b"chunked");
    codings.next().is_some_and(is_chunked) && codings.next().is_none()
}

/// The length that all lines state; `None` if they differ.
fn common_length(headers: &HeaderMap) -> Option<HeaderValue> {
    let mut lengths = headers
        .get_all(header::CONTENT_LENGTH)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii);
    let length = lengths.next().filter(|length| is_number(length))?;
    if lengths.any(|other| other != length) {
        return None;
    }
    HeaderValue::from_bytes(length).ok()
}

fn is_number(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(u8::is_ascii_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_length_beside_a_coding_is_removed() {
        let mut headers = map(&[("content-length", "3"), ("transfer-encoding", "chunked")]);
        assert!(disambiguate(&mut headers));
        assert!(!headers.contains_key("content-length"));
    }

    #[test]
    fn equal_lengths_become_one_and_different_ones_are_rejected() {
        for lines in [
            &[("content-length", "5, 5")][..],
            &[("content-length", "5"), ("content-length", "5")],
            &[("content-length", "5")],
        ] {
            let mut headers = map(lines);
            assert!(disambiguate(&mut headers), "{lines:?}");
            let lengths: Vec<_> = headers.get_all("content-length").iter().collect();
            assert_eq!(lengths, ["5"], "{lines:?}");
        }
        for lines in [
            &[("content-length", "5, 6")][..],
            &[("content-length", "5"), ("content-length", "6")],
            &[("content-length", "+5")],
            &[("content-length", "")],
            &[
                ("content-length", "6"),
                ("content-length", "5"),
                ("transfer-encoding", "chunked"),
            ],
            &[("transfer-encoding", "gzip, chunked")],
            &[
                ("transfer-encoding", "gzip"),
                ("transfer-encoding", "chunked"),
            ],
        ] {
            assert!(!disambiguate(&mut map(lines)), "{lines:?}");
        }
    }
}
