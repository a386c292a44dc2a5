//! The configuration that a client is built from.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use http::HeaderValue;
use kube::config::Config;
use waypost_core::provider::TokenFile;

use super::plugin::CredentialPlugin;

/// The configuration from which a client is built.
pub(crate) struct ClientConfig {
    pub(crate) kube: Config,
    /// The file with the bearer token. It is not in the configuration of `kube`, because Waypost reads
    /// it itself.
    pub(crate) token_file: Option<PathBuf>,
    /// The program that prints the credentials. It is not in the configuration of `kube`, which would
    /// run it several times.
    pub(crate) plugin: Option<CredentialPlugin>,
    /// The namespace in the files.
    pub(crate) namespace: Option<String>,
    /// Where the credentials come from, for error messages.
    pub(crate) identity: String,
    /// Where the trusted CA certificates come from, for error messages.
    pub(crate) ca: String,
    /// The files that were read.
    pub(crate) files: Vec<PathBuf>,
}

impl ClientConfig {
    /// The current state of the files.
    pub(crate) fn stamps(&self) -> FileStamps {
        let stamps = self.files.iter().map(|file| (file.clone(), stamp(file)));
        FileStamps(stamps.collect())
    }
}

/// The modification times and sizes of files at one moment.
pub(crate) struct FileStamps(Vec<(PathBuf, Option<(SystemTime, u64)>)>);

impl FileStamps {
    pub(crate) fn have_changed(&self) -> bool {
        self.0.iter().any(|(file, before)| stamp(file) != *before)
    }
}

fn stamp(file: &Path) -> Option<(SystemTime, u64)> {
    let data = fs::metadata(file).ok()?;
    Some((data.modified().ok()?, data.len()))
}

/// The `Authorization` header for the token in a file (RFC 6750, section 2.1), or what is wrong with
/// the file.
pub(crate) fn bearer(file: &TokenFile) -> Result<HeaderValue, String> {
    let with_path = |why: String| format!("{}: {why}", file.path().display());
    let token = file.token().map_err(with_path)?;
    bearer_of(&token).map_err(with_path)
}

/// The `Authorization` header for a token, or what is wrong with it.
pub(crate) fn bearer_of(token: &str) -> Result<HeaderValue, String> {
    let mut header =
        HeaderValue::try_from(format!("Bearer {token}")).map_err(|why| why.to_string())?;
    // Keeps the token out of the Debug output of headers.
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_appears_changes_or_vanishes_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("ca.crt");
        let stamps = || FileStamps(vec![(file.clone(), stamp(&file))]);
        let missing = stamps();
        assert!(!missing.have_changed());
        fs::write(&file, "1").unwrap();
        assert!(missing.have_changed());
        let first = stamps();
        assert!(!first.have_changed());
        fs::write(&file, "22").unwrap();
        assert!(first.have_changed());
        let second = stamps();
        fs::remove_file(&file).unwrap();
        assert!(second.have_changed());
    }

    #[test]
    fn a_token_is_sent_as_a_bearer_and_never_printed() {
        let header = bearer_of("secret").unwrap();
        assert_eq!(header.as_bytes(), b"Bearer secret");
        assert!(!format!("{header:?}").contains("secret"));
        assert!(bearer_of("a\nb").is_err());
    }
}
