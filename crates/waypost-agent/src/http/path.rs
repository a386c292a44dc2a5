//! Paths as Go reads and writes them.

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
    let mut escaped = String::with_capacity(path.len());
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~$&+,/:;=@".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

/// Decodes a path; nothing if it has a `%` without two hexadecimal digits.
pub(super) fn unescape(path: &str) -> Option<String> {
    if !path.contains('%') {
        return Some(path.to_owned());
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let high = char::from(rest.next()?).to_digit(16)?;
            let low = char::from(rest.next()?).to_digit(16)?;
            bytes.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    Some(String::from_utf8_lossy(&bytes).into_owned())
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
