//! Operations on texts.

use url::Url;

/// Truncates a text to at most `limit` bytes without splitting a character.
pub(crate) fn truncate(text: &mut String, limit: usize) {
    if text.len() > limit {
        let end = (0..=limit).rev().find(|&at| text.is_char_boundary(at));
        text.truncate(end.unwrap_or(0));
    }
}

/// Replaces the password in a URL by `***`, like Go does in errors.
pub(crate) fn mask_password(url: &str) -> String {
    match Url::parse(url) {
        Ok(mut parsed) if parsed.password().is_some() => {
            // Fails only for URLs that can't have a password.
            let _ = parsed.set_password(Some("***"));
            parsed.into()
        }
        _ => url.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncation_does_not_split_characters() {
        let mut text = "aéé".to_owned();
        truncate(&mut text, 4);
        assert_eq!(text, "aé");
    }
}
