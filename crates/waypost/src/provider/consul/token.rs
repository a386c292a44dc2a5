use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::SystemTime,
};

use reqwest::header::HeaderValue;

use crate::{
    error::{ConfigError, Error},
    model::Invalid,
};

/// An ACL token: sent as a header, never shown.
pub(super) enum Token {
    None,
    Fixed(HeaderValue),
    File(TokenFile),
}

/// A token that others may replace while we run, as secret stores do.
pub(super) struct TokenFile {
    path: PathBuf,
    read: Mutex<Read>,
}

/// What was read last, and what the file looked like then.
struct Read {
    token: HeaderValue,
    stamp: Option<Stamp>,
    is_failing: bool,
}

type Stamp = (SystemTime, u64);

impl Token {
    pub(super) fn fixed(text: &str) -> Result<Self, Invalid> {
        Ok(Self::Fixed(header(text)?))
    }

    /// A token from a file that must be readable now.
    pub(super) fn file(path: &Path) -> Result<Self, Error> {
        let unreadable = |why: String| ConfigError::new(path.display().to_string(), why);
        let text = fs::read_to_string(path)
            .map_err(|cause| unreadable(format!("no token can be read: {cause}")))?;
        if text.trim().is_empty() {
            return Err(unreadable("it is empty; it must hold an ACL token".into()).into());
        }
        Ok(Self::File(TokenFile {
            path: path.to_owned(),
            read: Mutex::new(Read {
                token: header(&text)?,
                stamp: stamp(path).ok(),
                is_failing: false,
            }),
        }))
    }

    /// The token to send now.
    pub(super) fn current(&self) -> Option<HeaderValue> {
        match self {
            Self::None => None,
            Self::Fixed(token) => Some(token.clone()),
            Self::File(file) => Some(file.current()),
        }
    }
}

impl TokenFile {
    /// Looks at the file before each request: that costs microseconds, and a rotated token is in
    /// use at once. What can't be read now may be half written, so the old token stays.
    fn current(&self) -> HeaderValue {
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamp(&self.path);
        if now.as_ref().ok() == read.stamp.as_ref() && now.is_ok() {
            return read.token.clone();
        }
        let renewed = now.and_then(|now| {
            let text = fs::read_to_string(&self.path)?;
            match header(&text) {
                Ok(token) if !text.trim().is_empty() => Ok((now, token)),
                _ => Err(io::Error::other("it holds no token")),
            }
        });
        match renewed {
            Ok((now, token)) => {
                *read = Read {
                    token,
                    stamp: Some(now),
                    is_failing: false,
                };
            }
            Err(error) => {
                if !read.is_failing {
                    let file = self.path.display();
                    tracing::warn!(%file, %error, "token file can't be read; the old token stays");
                }
                read.is_failing = true;
                read.stamp = None;
            }
        }
        read.token.clone()
    }
}

fn stamp(path: &Path) -> io::Result<Stamp> {
    let data = fs::metadata(path)?;
    Ok((data.modified()?, data.len()))
}

fn header(text: &str) -> Result<HeaderValue, Invalid> {
    let mut token = HeaderValue::from_str(text.trim()).map_err(|_| {
        Invalid::new(
            "Consul token",
            "(hidden)",
            "it has characters no header may have",
        )
    })?;
    // Kept out of Debug output by those who print headers.
    token.set_sensitive(true);
    Ok(token)
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("none"),
            Self::Fixed(_) => f.write_str("(hidden)"),
            Self::File(file) => write!(f, "(hidden, from {})", file.path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
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
