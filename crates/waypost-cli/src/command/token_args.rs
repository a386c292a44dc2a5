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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_is_that_of_the_file_or_the_given_one() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("token");
        let given = |token: &str| Some(token.to_owned());
        fs::write(&file, " secret \n").unwrap();
        assert_eq!(
            token(given("other"), Some(&file)).unwrap().as_deref(),
            Some("secret")
        );
        assert_eq!(
            token(given("other"), None).unwrap().as_deref(),
            Some("other")
        );
        assert_eq!(token(given(""), None).unwrap(), None);
        assert_eq!(token(None, None).unwrap(), None);
        fs::write(&file, " \n").unwrap();
        let error = token(given("other"), Some(&file)).unwrap_err().to_string();
        assert_eq!(error, format!("the token file {} is empty", file.display()));
        fs::remove_file(&file).unwrap();
        let error = token(None, Some(&file)).unwrap_err().to_string();
        let expected = format!("can't read the token file {}: ", file.display());
        assert!(error.starts_with(&expected), "{error}");
    }
}
