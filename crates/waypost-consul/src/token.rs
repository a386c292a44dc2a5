//! ACL tokens.

use std::fmt;
use std::path::{Path, PathBuf};

use http::HeaderValue;
use waypost_core::provider::TokenFile;
use waypost_core::{ConfigError, Error, Invalid};

const NOT_A_HEADER: &str = "it has characters that a header can't contain, such as a line break";

/// Where the ACL token comes from, as configured.
#[derive(Clone)]
pub(super) enum TokenSource {
    None,
    Value(String),
    File(PathBuf),
}

impl TokenSource {
    /// The value of an environment variable.
    pub(super) fn variable(name: &str, token: String) -> Result<Self, ConfigError> {
        match header(token.trim()) {
            Some(_) => Ok(Self::Value(token)),
            None => Err(ConfigError::new(name, NOT_A_HEADER)),
        }
    }

    /// Reads the token.
    pub(super) fn load(&self) -> Result<Token, Error> {
        Ok(match self {
            Self::None => Token::None,
            Self::Value(token) => Token::fixed(token)?,
            Self::File(path) => Token::file(path)?,
        })
    }
}

impl fmt::Debug for TokenSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Value(_) => f.write_str("(hidden)"),
            Self::File(path) => path.fmt(f),
        }
    }
}

/// An ACL token, sent as a header and never displayed.
pub(super) enum Token {
    None,
    Fixed(HeaderValue),
    File(TokenFile),
}

impl Token {
    fn fixed(text: &str) -> Result<Self, Invalid> {
        let invalid = || Invalid::new("Consul token", "(hidden)", NOT_A_HEADER);
        header(text.trim()).map(Self::Fixed).ok_or_else(invalid)
    }

    /// A token from a file, which must be readable now.
    fn file(path: &Path) -> Result<Self, Error> {
        let file = TokenFile::new(path);
        file.token()
            .map_err(|problem| ConfigError::new(path.display().to_string(), problem))?;
        Ok(Self::File(file))
    }

    /// The token to send now.
    pub(super) fn current(&self) -> Option<HeaderValue> {
        match self {
            Self::None => None,
            Self::Fixed(token) => Some(token.clone()),
            // The file was readable at the start, so there always is a token.
            Self::File(file) => header(&file.token().ok()?),
        }
    }
}

/// The token as a header, unless it has characters that a header can't contain.
fn header(token: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::try_from(token).ok()?;
    // Hides it from the `Debug` output of headers.
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

    fn value(token: &Token) -> String {
        let token = token.current().unwrap();
        token.to_str().unwrap().to_owned()
    }

    #[test]
    fn a_token_is_replaced_only_by_a_valid_token_in_its_file() {
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
        assert_eq!(value(&token), "first");
        fs::write(&path, "the second\n").unwrap();
        assert_eq!(value(&token), "the second");
        fs::remove_file(&path).unwrap();
        assert_eq!(value(&token), "the second");
        fs::write(&path, "").unwrap();
        assert_eq!(value(&token), "the second");
        fs::write(&path, "the third one").unwrap();
        assert_eq!(value(&token), "the third one");
        let debug = format!("{token:?}");
        assert!(!debug.contains("third"), "{debug}");
    }

    #[test]
    fn an_invalid_token_is_refused_without_showing_it() {
        let error = Token::fixed("se\ncret").unwrap_err().to_string();
        assert!(!error.contains("cret\""), "{error}");
    }

    #[test]
    fn an_invalid_token_in_a_variable_is_refused_with_the_name_of_the_variable() {
        for name in ["CONSUL_TOKEN", "CONSUL_HTTP_TOKEN"] {
            let environment = waypost_core::Environment::default().with(name, "se\ncret");
            let error = crate::ConsulProvider::from_environment(&environment).unwrap_err();
            let error = error.to_string();
            assert!(
                error.starts_with(name) && !error.contains("cret\""),
                "{error}"
            );
        }
    }
}
