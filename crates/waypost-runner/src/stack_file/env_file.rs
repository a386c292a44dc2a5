//! Files of environment variables: `NAME=VALUE` lines, as `.env` files have them.

use std::path::{Path, PathBuf};

use super::document::Problem;

/// The variables of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EnvFile {
    /// Its path, as written in the stack file.
    pub(super) name: String,
    pub(super) variables: Vec<(String, String)>,
}

/// Why a file of variables can't be used.
pub(super) enum EnvFileError {
    /// It is missing, and the entry has no `?` at its end.
    Missing(PathBuf),
    Unreadable(PathBuf, std::io::Error),
    /// A line isn't valid.
    Invalid(Problem),
}

impl EnvFile {
    /// Reads the file that an entry of `env-files` names. `None` if it is missing and the entry ends in
    /// `?`, which makes the file optional.
    pub(super) fn read(directory: &Path, entry: &str) -> Result<Option<Self>, EnvFileError> {
        let (name, may_be_missing) = match entry.strip_suffix('?') {
            Some(name) => (name, true),
            None => (entry, false),
        };
        let path = directory.join(name);
        let text = match std::fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return if may_be_missing {
                    Ok(None)
                } else {
                    Err(EnvFileError::Missing(path))
                };
            }
            Err(error) => return Err(EnvFileError::Unreadable(path, error)),
        };
        let variables: Result<Vec<_>, _> = dotenvy::from_read_iter(text.as_bytes()).collect();
        match variables {
            Ok(variables) => Ok(Some(Self {
                name: name.to_owned(),
                variables,
            })),
            Err(error) => Err(EnvFileError::Invalid(invalid(path, &text, &error))),
        }
    }
}

fn invalid(file: PathBuf, text: &str, error: &dotenvy::Error) -> Problem {
    let (line, column) = match error {
        dotenvy::Error::LineParse(content, index) => {
            let line = text.lines().position(|line| {
                let first = content.lines().next().unwrap_or_default();
                line.trim() == first.trim()
            });
            (line.unwrap_or_default() + 1, index + 1)
        }
        _ => (1, 1),
    };
    Problem {
        file,
        line,
        column,
        message: "not a variable; use NAME=VALUE, with quotes around a value with spaces"
            .to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<EnvFile>, EnvFileError> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(".env"), text).unwrap();
        EnvFile::read(dir.path(), ".env")
    }

    #[test]
    fn quotes_comments_and_exports_are_understood() {
        let text = "# a comment\nA=1\nexport B='two words' # why\nC=\"line\\nbreak\"\n\nD=\n";
        let Ok(Some(file)) = read(text) else {
            panic!("it should be valid");
        };
        let expected = [
            ("A", "1"),
            ("B", "two words"),
            ("C", "line\nbreak"),
            ("D", ""),
        ];
        let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(file.variables, expected);
    }

    #[test]
    fn an_invalid_line_is_reported_with_its_position() {
        let Err(EnvFileError::Invalid(problem)) = read("A=1\n\nnot a variable\n") else {
            panic!("it should be invalid");
        };
        assert_eq!((problem.line, problem.column), (3, 5));
        assert!(problem.message.contains("NAME=VALUE"), "{problem}");
    }

    #[test]
    fn a_file_may_be_missing_if_its_entry_ends_in_a_question_mark() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(EnvFile::read(dir.path(), ".env?"), Ok(None)));
        let missing = EnvFile::read(dir.path(), ".env");
        assert!(matches!(missing, Err(EnvFileError::Missing(_))));
    }
}
