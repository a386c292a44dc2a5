use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use http::HeaderValue;

/// A token in a file, which others replace while we run.
///
/// The file is read before each request. Requests are rare, the file is small, and so a rotated
/// token is in use at once, not a minute later. White space around the token doesn't count: files
/// made by hand end with a newline. What can't be read now may be half written, or was removed on
/// purpose after the start, so the last token that was read stays.
pub(super) struct TokenFile {
    path: PathBuf,
    last: Mutex<Option<HeaderValue>>,
}

impl TokenFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            last: Mutex::new(None),
        }
    }

    /// The header to send now.
    ///
    /// # Errors
    /// If there is none and never was one: the reason in words.
    pub(super) fn header(&self) -> Result<HeaderValue, String> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match (read(&self.path), &*last) {
            (Ok(header), _) => Ok(last.insert(header).clone()),
            (Err(_), Some(header)) => Ok(header.clone()),
            (Err(why), None) => Err(why),
        }
    }
}

/// The token of a file as a header.
pub(super) fn read(path: &Path) -> Result<HeaderValue, String> {
    let file = path.display();
    let text = fs::read_to_string(path)
        .map_err(|cause| format!("no token can be read from {file}: {cause}"))?;
    let token = text.trim();
    if token.is_empty() {
        return Err(format!("{file} is empty; it must hold a token"));
    }
    let mut header = HeaderValue::try_from(format!("Bearer {token}"))
        .map_err(|_| format!("{file} holds characters that no token has"))?;
    // Kept out of Debug output by those who print headers.
    header.set_sensitive(true);
    Ok(header)
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
        let token = TokenFile::new(path.clone());
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
