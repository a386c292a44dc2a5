//! Parsers of external input, for the fuzz targets of the repository. Not part of the API.

use std::path::Path;

/// Reads a file of services, as JSON or YAML by the ending of `path`.
pub fn file(path: &Path, content: &[u8]) {
    let _ = crate::provider::file::parse(path, content);
}
