//! Which files of a folder are watched.

use std::path::Path;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// Patterns as in a `.gitignore`, each naming files to watch.
#[derive(Clone, Debug)]
pub(crate) struct Patterns(Gitignore);

impl Patterns {
    /// The patterns are relative to `root`. Without any, everything is watched.
    ///
    /// # Errors
    /// What is wrong with one of them.
    pub(crate) fn new(
        root: &Path,
        patterns: impl IntoIterator<Item = impl AsRef<str>>,
    ) -> Result<Self, ignore::Error> {
        let mut builder = GitignoreBuilder::new(root);
        for pattern in patterns {
            builder.add_line(None, pattern.as_ref())?;
        }
        Ok(Self(builder.build()?))
    }

    /// Whether a file is named. A pattern that begins with `!` takes files out again.
    #[cfg_attr(not(test), expect(dead_code, reason = "the watcher will ask"))]
    pub(crate) fn names(&self, file: &Path) -> bool {
        if self.0.is_empty() {
            return true;
        }
        matches!(
            self.0.matched_path_or_any_parents(file, false),
            Match::Ignore(_)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_named_as_in_a_gitignore() {
        let root = Path::new("/stack");
        let patterns = Patterns::new(root, ["**/*.go", "go.mod", "!**/*_test.go"]).unwrap();
        for (file, named) in [
            ("/stack/main.go", true),
            ("/stack/deep/down/a.go", true),
            ("/stack/go.mod", true),
            ("/stack/main_test.go", false),
            ("/stack/README.md", false),
        ] {
            assert_eq!(patterns.names(Path::new(file)), named, "{file}");
        }
        let all = Patterns::new(root, [""; 0]).unwrap();
        assert!(all.names(Path::new("/stack/README.md")));
    }
}
