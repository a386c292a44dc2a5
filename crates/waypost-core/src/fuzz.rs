//! Parsers of external input, for the fuzz targets of the repository. Not part of the API.

use std::path::Path;

/// Parses a file of services, as JSON or YAML depending on the extension of `path`.
pub fn file(path: &Path, content: &[u8]) {
    let _ = crate::provider::parse_file(path, content);
}
