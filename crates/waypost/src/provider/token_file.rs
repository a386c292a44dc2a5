//! A token in a file that others replace while we run, as secret stores and Kubernetes do.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use http::HeaderValue;

/// The file is read before each request. Requests are rare, the file is small, and so a rotated
/// token is in use at once. White space around the token doesn't count: files made by hand end with
/// a newline. What can't be read now may be half written, or was removed on purpose after the start,
/// so the last token that was read stays.
pub(super) struct TokenFile {
    path: PathBuf,
    /// What stands before the token in the header.
    prefix: &'static str,
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    header: Option<HeaderValue>,
    is_failing: bool,
}

impl TokenFile {
    pub(super) fn new(path: PathBuf, prefix: &'static str) -> Self {
        Self {
            path,
            prefix,
            last: Mutex::default(),
        }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The header to send now.
    ///
    /// # Errors
    /// If there is none and never was one: the reason in words.
    pub(super) fn header(&self) -> Result<HeaderValue, String> {
        let read = self.read();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match (read, &last.header) {
            (Ok(header), _) => {
                last.is_failing = false;
                Ok(last.header.insert(header).clone())
            }
            (Err(why), Some(header)) => {
                let header = header.clone();
                if !std::mem::replace(&mut last.is_failing, true) {
                    let file = self.path.display();
                    tracing::warn!(%file, why, "the token file can't be used; the old token stays");
                }
                Ok(header)
            }
            (Err(why), None) => Err(why),
        }
    }

    fn read(&self) -> Result<HeaderValue, String> {
        let text = fs::read_to_string(&self.path)
            .map_err(|cause| format!("no token can be read: {cause}"))?;
        let token = text.trim();
        if token.is_empty() {
            return Err("it is empty; it must hold a token".into());
        }
        header(self.prefix, token).ok_or_else(|| "it holds characters that no token has".into())
    }
}

/// A token as a header, if it can be one.
pub(super) fn header(prefix: &str, token: &str) -> Option<HeaderValue> {
    let mut header = HeaderValue::try_from(format!("{prefix}{token}")).ok()?;
    // Kept out of Debug output by those who print headers.
    header.set_sensitive(true);
    Some(header)
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
    fn a_file_is_read_again_each_time_and_white_space_around_the_token_does_not_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let token = TokenFile::new(path.clone(), "Bearer ");
        assert!(token.header().unwrap_err().contains("no token can be read"));
        for (content, sent) in [
            ("first\n", "Bearer first"),
            ("  second \r\n\n", "Bearer second"),
            // Half written, or removed on purpose: the last one stays.
            (" \n", "Bearer second"),
            ("two\nlines", "Bearer second"),
            ("third", "Bearer third"),
        ] {
            fs::write(&path, content).unwrap();
            assert_eq!(token.header().unwrap(), sent, "{content:?}");
        }
        fs::remove_file(&path).unwrap();
        assert_eq!(token.header().unwrap(), "Bearer third");
        let debug = format!("{token:?} {:?}", token.header());
        assert!(!debug.contains("third"), "{debug}");
    }
}
