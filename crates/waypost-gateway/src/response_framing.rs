//! Ensures that the client and the gateway agree on where an instance's response ends.

use http::header::{HeaderMap, HeaderValue};
use http::{Response, header};

/// Whether the end of a response is unambiguous, once [`remove_conflicts`] was called.
///
/// hyper reads any codings that end in `chunked`. A coding before it, such as `gzip`, would be lost,
/// since the response is framed anew.
pub(crate) fn is_clear<B>(response: &Response<B>) -> bool {
    let headers = response.headers();
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let coding_is_clear = match (codings.next(), codings.next()) {
        (None, _) => true,
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        _ => false,
    };
    coding_is_clear && one_length(headers).is_ok()
}

/// Removes a length if there is also a transfer coding (RFC 9112, section 6.3), and repetitions of a length.
pub(crate) fn remove_conflicts(headers: &mut HeaderMap) {
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
        return;
    }
    let mut lines = headers.get_all(header::CONTENT_LENGTH).iter();
    let is_list = lines
        .next()
        .is_some_and(|line| line.as_bytes().contains(&b','));
    if (is_list || lines.next().is_some())
        && let Ok(Some(length)) = one_length(headers)
    {
        headers.insert(header::CONTENT_LENGTH, length);
    }
}

/// The length, if there is one. An error if there are several different ones.
fn one_length(headers: &HeaderMap) -> Result<Option<HeaderValue>, ()> {
    let mut lines = headers.get_all(header::CONTENT_LENGTH).iter();
    match (lines.next(), lines.next()) {
        (None, _) => return Ok(None),
        (Some(line), None) if line.as_bytes().iter().all(u8::is_ascii_digit) => {
            return Ok(Some(line.clone()));
        }
        _ => {}
    }
    let mut lengths = headers
        .get_all(header::CONTENT_LENGTH)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii);
    let length = lengths.next().ok_or(())?;
    if lengths.any(|other| other != length) || !length.iter().all(u8::is_ascii_digit) {
        return Err(());
    }
    HeaderValue::from_bytes(length).map(Some).map_err(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn response(lines: &[(&'static str, &'static str)]) -> Response<()> {
        let mut response = Response::new(());
        for (name, value) in lines {
            let value = HeaderValue::from_static(value);
            response.headers_mut().append(*name, value);
        }
        response
    }

    #[test]
    fn a_length_beside_a_coding_is_removed() {
        let mut response = response(&[("content-length", "3"), ("transfer-encoding", "chunked")]);
        assert!(is_clear(&response));
        remove_conflicts(response.headers_mut());
        assert!(!response.headers().contains_key("content-length"));
    }

    #[test]
    fn equal_lengths_become_one_and_different_ones_are_rejected() {
        for lines in [
            &[("content-length", "5, 5")][..],
            &[("content-length", "5"), ("content-length", "5")],
            &[("content-length", "5")],
        ] {
            let mut response = response(lines);
            assert!(is_clear(&response), "{lines:?}");
            remove_conflicts(response.headers_mut());
            let lengths: Vec<_> = response
                .headers()
                .get_all("content-length")
                .iter()
                .collect();
            assert_eq!(lengths, ["5"], "{lines:?}");
        }
        for lines in [
            &[("content-length", "5, 6")][..],
            &[("content-length", "5"), ("content-length", "6")],
            &[("content-length", "+5")],
            &[("transfer-encoding", "gzip, chunked")],
            &[
                ("transfer-encoding", "gzip"),
                ("transfer-encoding", "chunked"),
            ],
        ] {
            assert!(!is_clear(&response(lines)), "{lines:?}");
        }
    }
}
