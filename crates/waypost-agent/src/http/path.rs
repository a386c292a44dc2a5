//! Paths as Go reads and writes them.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What Go escapes in a path.
const RESERVED: AsciiSet = NON_ALPHANUMERIC
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

/// The path without `//`, `.` and `..`, if it has any.
pub(super) fn clean(path: &str) -> Option<String> {
    if !path.contains("//") && !path.contains("/.") && path.starts_with('/') {
        return None;
    }
    let mut kept = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            part => kept.push(part),
        }
    }
    let mut clean = format!("/{}", kept.join("/"));
    if path.ends_with('/') && clean != "/" {
        clean.push('/');
    }
    (clean != path).then_some(clean)
}

/// Percent-encodes what may not stand in a path.
pub(super) fn escape(path: &str) -> String {
    utf8_percent_encode(path, &RESERVED).to_string()
}

/// Decodes a path; nothing if it has a `%` without two hexadecimal digits.
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
    fn a_broken_escape_is_no_path() {
        assert_eq!(unescape("/a%20b").as_deref(), Some("/a b"));
        assert_eq!(unescape("/a%2"), None);
        assert_eq!(unescape("/a%zz"), None);
    }
}
