//! Cleaning and percent-encoding of paths by the rules of Go's `net/http` and `net/url`.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// The characters that Go escapes in a path.
const ESCAPED: AsciiSet = NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'~')
    .remove(b'$')
    .remove(b'&')
    .remove(b'+')
    .remove(b',')
    .remove(b'/')
    .remove(b':')
    .remove(b';')
    .remove(b'=')
    .remove(b'@');

/// The path without `//`, `.` and `..`. `None` if it has none of them.
pub(super) fn clean(path: &str) -> Option<String> {
    if !path.contains("//") && !path.contains("/.") && path.starts_with('/') {
        return None;
    }
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => {
                segments.pop();
            }
            segment => segments.push(segment),
        }
    }
    let mut clean = format!("/{}", segments.join("/"));
    if path.ends_with('/') && clean != "/" {
        clean.push('/');
    }
    (clean != path).then_some(clean)
}

/// Percent-encodes the characters that a path must not contain.
pub(super) fn escape(path: &str) -> String {
    utf8_percent_encode(path, &ESCAPED).to_string()
}

/// Percent-decodes a path. `None` if it has a `%` without two hexadecimal digits.
pub(super) fn unescape(path: &str) -> Option<String> {
    let is_escape = |rest: &str| {
        let digits = rest.as_bytes().get(..2);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
    };
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    path.split('%')
        .skip(1)
        .all(is_escape)
        .then(|| decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_cleaned_as_go_cleans_them() {
        for (path, expected) in [
            ("/v1/kv/a", None),
            ("/v1/kv/.hidden", None),
            ("//v1//kv/", Some("/v1/kv/")),
            ("/v1/../ui", Some("/ui")),
            ("/..", Some("/")),
        ] {
            assert_eq!(clean(path).as_deref(), expected, "{path}");
        }
    }

    #[test]
    fn an_invalid_percent_escape_is_rejected() {
        assert_eq!(unescape("/a%20b").as_deref(), Some("/a b"));
        assert_eq!(unescape("/a%2"), None);
        assert_eq!(unescape("/a%zz"), None);
    }
}
