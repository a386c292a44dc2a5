use std::fmt;
use std::path::Path;

use http::HeaderValue;
use waypost_core::provider::TokenFile;
use waypost_core::{ConfigError, Error, Invalid};

/// An ACL token: sent as a header, never shown.
pub(super) enum Token {
    None,
    Fixed(HeaderValue),
    File(TokenFile),
}

impl Token {
    pub(super) fn fixed(text: &str) -> Result<Self, Invalid> {
        let header = header(text.trim());
        let refused = "it has characters no header may have";
        let header = header.ok_or_else(|| Invalid::new("Consul token", "(hidden)", refused))?;
        Ok(Self::Fixed(header))
    }

    /// A token from a file that must be readable now.
    pub(super) fn file(path: &Path) -> Result<Self, Error> {
        let file = TokenFile::new(path);
        let unusable = |why| ConfigError::new(file.path().display().to_string(), why);
        file.token().map_err(unusable)?;
        Ok(Self::File(file))
    }

    /// The token to send now.
    pub(super) fn current(&self) -> Option<HeaderValue> {
        match self {
            Self::None => None,
            Self::Fixed(token) => Some(token.clone()),
            // It was readable at the start, so there always is one.
            Self::File(file) => header(&file.token().ok()?),
        }
    }
}

/// A token as a header, if it has no characters that a header can't carry.
fn header(token: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::try_from(token).ok()?;
    // Hidden from the Debug output of those who print headers.
    header.set_sensitive(true);
    Some(header)
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Fixed(_) => f.write_str("(hidden)"),
            Self::File(file) => file.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn shown(token: &Token) -> String {
        let token = token.current().unwrap();
        token.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_file_is_read_again_when_it_changes_and_only_then_replaces_the_token() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        assert!(Token::file(&path).is_err());
        fs::write(&path, " \n").unwrap();
        assert!(
            Token::file(&path)
                .unwrap_err()
                .to_string()
                .contains("empty")
        );
        fs::write(&path, "first\n").unwrap();
        let token = Token::file(&path).unwrap();
        assert_eq!(shown(&token), "first");
        fs::write(&path, "the second\n").unwrap();
        assert_eq!(shown(&token), "the second");
        fs::remove_file(&path).unwrap();
        assert_eq!(shown(&token), "the second");
        fs::write(&path, "").unwrap();
        assert_eq!(shown(&token), "the second");
        fs::write(&path, "the third one").unwrap();
        assert_eq!(shown(&token), "the third one");
        let debug = format!("{token:?}");
        assert!(!debug.contains("third"), "{debug}");
    }

    #[test]
    fn a_token_that_no_header_can_carry_is_refused_unseen() {
        let error = Token::fixed("se\ncret").unwrap_err().to_string();
        assert!(!error.contains("cret\""), "{error}");
    }
}
