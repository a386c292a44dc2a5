//! Reads a token from an option, a variable or a file.

use std::fs;
use std::path::Path;

use crate::error::CommandError;

/// The token in the file, or else the given one. The file has precedence, because a variable may have
/// been inherited unintentionally.
pub(super) fn token(
    given: Option<String>,
    file: Option<&Path>,
) -> Result<Option<String>, CommandError> {
    let Some(file) = file else {
        return Ok(given.filter(|token| !token.is_empty()));
    };
    let text = fs::read_to_string(file).map_err(|error| {
        CommandError::Other(format!(
            "can't read the token file {}: {error}",
            file.display()
        ))
    })?;
    match text.trim() {
        "" => Err(CommandError::Other(format!(
            "the token file {} is empty",
            file.display()
        ))),
        token => Ok(Some(token.to_owned())),
    }
}
