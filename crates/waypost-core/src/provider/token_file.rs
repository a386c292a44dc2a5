//! A token in a file that may be replaced while the program runs.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::{fmt, fs};

/// A token in a file that is replaced while the program runs, as secret stores and Kubernetes do.
///
/// The file is read for each request: requests are rare and the file is small, so a rotated token
/// is in use at once. White space around the token is ignored, since files made by hand end with a
/// newline. If the file can't be read it may be half written, or removed on purpose after the start,
/// so the last token that was read stays in use; a warning is logged once.
///
/// `Debug` prints the path, never the token.
///
/// ```
/// use waypost_core::provider::TokenFile;
///
/// let file = TokenFile::new("/no/such/token");
/// assert!(file.token().unwrap_err().contains("can't be read"));
/// ```
pub struct TokenFile {
    path: PathBuf,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    token: Option<String>,
    is_failing: bool,
}

impl TokenFile {
    /// The token in the file at `path`. Nothing is read yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            last: Mutex::default(),
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The token to send now; it holds only visible ASCII characters and spaces.
    ///
    /// # Errors
    /// If the file holds no usable token and never did: the reason, without the path.
    pub fn token(&self) -> Result<String, String> {
        let read = self.read();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match (read, &last.token) {
            (Ok(token), _) => {
                last.is_failing = false;
                Ok(last.token.insert(token).clone())
            }
            (Err(why), Some(token)) => {
                let token = token.clone();
                if !std::mem::replace(&mut last.is_failing, true) {
                    let file = self.path.display();
                    tracing::warn!(%file, why, "token file unusable, using the previous token");
                }
                Ok(token)
            }
            (Err(why), None) => Err(why),
        }
    }

    fn read(&self) -> Result<String, String> {
        let text = fs::read_to_string(&self.path)
            .map_err(|cause| format!("the token can't be read: {cause}"))?;
        let token = text.trim();
        if token.is_empty() {
            return Err("the file is empty; it must hold a token".into());
        }
        if token.chars().any(|c| !(c.is_ascii_graphic() || c == ' ')) {
            return Err("the token has characters that a header can't carry".into());
        }
        Ok(token.to_owned())
    }
}

impl fmt::Debug for TokenFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "(hidden, from {})", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read_each_time_and_the_last_usable_token_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let file = TokenFile::new(path.clone());
        assert!(file.token().unwrap_err().contains("can't be read"));
        for (content, token) in [
            ("first\n", "first"),
            ("  second \r\n\n", "second"),
            // Half written, or removed on purpose: the last one stays.
            (" \n", "second"),
            ("two\nlines", "second"),
            ("third", "third"),
        ] {
            fs::write(&path, content).unwrap();
            assert_eq!(file.token().unwrap(), token, "{content:?}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(file.token().unwrap(), "third");
        let debug = format!("{file:?}");
        assert!(!debug.contains("third"), "{debug}");
    }
}
