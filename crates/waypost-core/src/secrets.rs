//! Masks secrets in texts that are shown.

use std::borrow::Cow;

/// Replaces what may be secret in the URLs of a text by `***`: user names, passwords, and the values of
/// queries and fragments. The URLs may be invalid, because errors quote invalid ones.
///
/// ```
/// # use waypost_core::mask_secrets;
/// assert_eq!(mask_secrets("http://ann:pw@host/x"), "http://***@host/x");
/// assert_eq!(mask_secrets("host:8500?token=abc&dc=x"), "host:8500?token=***&dc=***");
/// assert_eq!(mask_secrets("http://host:8500/x"), "http://host:8500/x");
/// ```
///
/// A password may contain any character, so everything before the last `@` of a word is masked.
pub fn mask_secrets(text: &str) -> Cow<'_, str> {
    if !text.contains(['@', '=']) {
        return Cow::Borrowed(text);
    }
    let mut masked = String::with_capacity(text.len());
    // A URL ends at a space, or at a quote that a message has put around it.
    for word in text.split_inclusive(|c: char| c.is_whitespace() || c == '"' || c == '`') {
        mask_word(word, &mut masked);
    }
    if masked == text {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(masked)
    }
}

/// Like [`mask_secrets`], for a text that is a single URL, which may contain any characters.
pub(crate) fn mask_secrets_in_url(url: &str) -> String {
    let mut masked = String::with_capacity(url.len());
    mask_word(url, &mut masked);
    masked
}

fn mask_word(word: &str, masked: &mut String) {
    let (scheme, rest) = match word.find("://") {
        Some(colon) => word.split_at(colon + 3),
        None => ("", word),
    };
    masked.push_str(scheme);
    let rest = match rest.rfind('@') {
        // Without a scheme, only `user:password@host` counts as a URL.
        Some(at) if !scheme.is_empty() || rest[..at].contains(':') => {
            masked.push_str("***");
            &rest[at..]
        }
        _ => rest,
    };
    let Some(query) = rest.find(['?', '#']) else {
        masked.push_str(rest);
        return;
    };
    let (path, query) = rest.split_at(query);
    masked.push_str(path);
    let mut in_value = false;
    for c in query.chars() {
        let ends_value = matches!(c, '&' | ';' | '#' | '"' | '`') || c.is_whitespace();
        if ends_value {
            in_value = false;
        }
        if !in_value {
            masked.push(c);
        }
        if c == '=' && !in_value {
            in_value = true;
            masked.push_str("***");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_in_urls_are_masked_however_malformed_the_url_is() {
        for (text, expected) in [
            ("http://u:PW@[bad", "http://***@[bad"),
            ("ftp://u:PW@h/", "ftp://***@h/"),
            ("http://u:P/W?x=#@h:1", "http://***@h:1"),
            ("http://token@h", "http://***@h"),
            ("u:PW@h:8500", "***@h:8500"),
            ("http://h?token=X", "http://h?token=***"),
            ("http://h?a=X=Y&b=Z#c=W", "http://h?a=***&b=***#c=***"),
            (
                "URL \"http://u:PW@h\" is not valid: use http://host:port",
                "URL \"http://***@h\" is not valid: use http://host:port",
            ),
            (
                "\"http://h?t=X\" and \"http://h?t=Y\"",
                "\"http://h?t=***\" and \"http://h?t=***\"",
            ),
        ] {
            assert_eq!(mask_secrets(text), expected);
            assert!(!mask_secrets(text).contains("PW"), "{text}");
        }
    }

    #[test]
    fn a_password_with_spaces_and_quotes_is_masked() {
        let masked = mask_secrets_in_url("http://u:P W\"@[bad?x=1");
        assert_eq!(masked, "http://***@[bad?x=***");
    }

    #[test]
    fn a_text_without_secrets_stays_as_it_is() {
        for text in [
            "http://host:8500/path",
            "a@b is not valid: use KEY=VALUE",
            "web-1@node-2",
            "what? x = 1",
        ] {
            assert!(matches!(mask_secrets(text), Cow::Borrowed(same) if same == text));
        }
    }
}
