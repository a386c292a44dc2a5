//! Watches files for changes.

use std::collections::{BTreeSet, HashMap};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ignore::gitignore::{Gitignore, GitignoreBuilder};
use ignore::{Match, WalkBuilder};
use notify::event::ModifyKind;
use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// Changes that don't stop are reported after this time.
const LONGEST_GATHERING: Duration = Duration::from_secs(5);
/// Folders that are never watched.
const NEVER: [&str; 2] = [".git", ".waypost"];

/// The files that a service is restarted for.
///
/// ```
/// use waypost_runner::WatchSpec;
///
/// let watch = WatchSpec::new("services/catalog").paths(["**/*.go", "go.mod"]);
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct WatchSpec {
    folder: PathBuf,
    paths: Vec<String>,
    wait: Duration,
    pub(crate) cascade: bool,
}

impl WatchSpec {
    /// Every file in a folder that no `.gitignore` ignores.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            paths: Vec::new(),
            wait: Duration::from_millis(200),
            cascade: false,
        }
    }

    /// Only files that match one of these patterns, which have the syntax of a `.gitignore`.
    pub fn paths(mut self, paths: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.paths.extend(paths.into_iter().map(Into::into));
        self
    }

    /// The time without further changes after which changes are reported; default: 200 ms.
    pub fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Also restart the services that depend on this one.
    pub fn cascade(mut self, cascade: bool) -> Self {
        self.cascade = cascade;
        self
    }
}

/// Patterns in the syntax of a `.gitignore` that name files to watch.
#[derive(Clone, Debug)]
pub(crate) struct Patterns(Gitignore);

impl Patterns {
    /// The patterns are relative to `root`. Without any, everything is watched.
    ///
    /// # Errors
    /// One of the patterns is invalid.
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

    /// Whether a file matches. A pattern that begins with `!` excludes files again.
    fn names(&self, file: &Path) -> bool {
        if self.0.is_empty() {
            return true;
        }
        matches!(
            self.0.matched_path_or_any_parents(file, false),
            Match::Ignore(_)
        )
    }
}

/// Reports the changes of the files of a [`WatchSpec`].
pub(crate) struct Watcher {
    root: PathBuf,
    patterns: Patterns,
    wait: Duration,
    ignored: Ignored,
    watcher: RecommendedWatcher,
    changed: mpsc::UnboundedReceiver<PathBuf>,
}

impl Watcher {
    /// # Errors
    /// The folder can't be watched, for example because the system's limit is reached.
    pub(crate) fn start(spec: &WatchSpec) -> Result<Self, String> {
        let failed = |error: &dyn std::fmt::Display| {
            format!("can't watch {}: {error}", spec.folder.display())
        };
        let root = spec.folder.canonicalize().map_err(|error| failed(&error))?;
        let patterns = Patterns::new(&root, &spec.paths).map_err(|error| failed(&error))?;
        let (sender, changed) = mpsc::unbounded_channel();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // The queue has overflowed if there is no path. The next change is reported again.
            let Ok(event) = event else { return };
            let is_change = match event.kind {
                EventKind::Create(_) | EventKind::Remove(_) => true,
                EventKind::Modify(kind) => !matches!(kind, ModifyKind::Metadata(_)),
                _ => false,
            };
            if is_change {
                for path in event.paths {
                    // Fails only if the receiver was dropped.
                    let _ = sender.send(path);
                }
            }
        });
        let mut watcher = Self {
            watcher: watcher.map_err(|error| failed(&error))?,
            ignored: Ignored::default(),
            patterns,
            wait: spec.wait,
            changed,
            root,
        };
        let root = watcher.root.clone();
        watcher.add_folder(&root).map_err(|error| failed(&error))?;
        Ok(watcher)
    }

    /// Waits for changes, until there are no more for a while. Returns the changed files relative to the
    /// folder.
    pub(crate) async fn next(&mut self) -> Option<BTreeSet<PathBuf>> {
        let mut files = BTreeSet::new();
        let mut first = None;
        loop {
            let path = if first.is_some_and(|at: Instant| at.elapsed() > LONGEST_GATHERING) {
                None
            } else if files.is_empty() {
                Some(self.changed.recv().await?)
            } else {
                timeout(self.wait, self.changed.recv()).await.ok().flatten()
            };
            let Some(path) = path else {
                return Some(files);
            };
            if let Some(file) = self.relevant(&path) {
                files.insert(file);
                first.get_or_insert_with(Instant::now);
            }
        }
    }

    /// The path relative to the folder, if the file is watched.
    fn relevant(&mut self, path: &Path) -> Option<PathBuf> {
        if path.file_name() == Some(OsStr::new(".gitignore")) {
            self.ignored.forget();
        }
        let is_folder = path.is_dir();
        if self.ignored.contains(path, is_folder) {
            return None;
        }
        if is_folder {
            // The files in it may be older than the watch, so they don't count as changed.
            let _ = self.add_folder(path);
            return None;
        }
        let relative = path.strip_prefix(&self.root).ok()?;
        self.patterns.names(path).then(|| relative.to_owned())
    }

    /// Watches a folder and those in it, except those that are ignored.
    fn add_folder(&mut self, folder: &Path) -> notify::Result<()> {
        let walk = WalkBuilder::new(folder)
            .hidden(false)
            .require_git(false)
            .filter_entry(|entry| {
                !NEVER
                    .iter()
                    .any(|name| entry.file_name() == OsStr::new(name))
            })
            .build();
        let folders = walk
            .flatten()
            .filter(|entry| entry.file_type().is_some_and(|kind| kind.is_dir()));
        for entry in folders {
            self.watcher
                .watch(entry.path(), RecursiveMode::NonRecursive)?;
        }
        Ok(())
    }
}

/// The rules of `.gitignore` files, which are read when they are needed.
#[derive(Default)]
struct Ignored {
    /// The rules by folder.
    files: HashMap<PathBuf, Gitignore>,
}

impl Ignored {
    fn contains(&mut self, path: &Path, is_folder: bool) -> bool {
        let is_never = |part: &OsStr| NEVER.iter().any(|name| part == OsStr::new(name));
        if path.iter().any(is_never) {
            return true;
        }
        for folder in path.ancestors().skip(1) {
            let rules = self.files.entry(folder.to_owned()).or_insert_with(|| {
                // A file that is missing or invalid ignores nothing, as for git.
                Gitignore::new(folder.join(".gitignore")).0
            });
            // The nearest file takes precedence.
            match rules.matched_path_or_any_parents(path, is_folder) {
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
                Match::None => {}
            }
            if folder.join(".git").exists() {
                break;
            }
        }
        false
    }

    fn forget(&mut self) {
        self.files.clear();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

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

    /// The changes up to that of `last`. On a busy machine they arrive in several parts.
    async fn until(watcher: &mut Watcher, last: &str) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        while !all.contains(last) {
            let changed = timeout(Duration::from_secs(60), watcher.next()).await;
            let files = changed.expect("a change").expect("no end");
            all.extend(files.iter().map(|file| file.display().to_string()));
        }
        all
    }

    #[tokio::test]
    async fn changes_are_gathered_and_ignored_files_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        fs::create_dir_all(file("src")).unwrap();
        fs::create_dir_all(file("target")).unwrap();
        fs::write(file(".gitignore"), "target/\n*.log\n").unwrap();
        let spec = WatchSpec::new(dir.path()).paths(["*.rs", "*.log"]);
        let mut watcher = Watcher::start(&spec).unwrap();
        fs::write(file("target/a.rs"), "").unwrap();
        fs::write(file("x.log"), "").unwrap();
        fs::write(file("README.md"), "").unwrap();
        fs::write(file("src/a.rs"), "").unwrap();
        fs::write(file("b.rs"), "").unwrap();
        let both = BTreeSet::from(["b.rs".to_owned(), "src/a.rs".to_owned()]);
        assert_eq!(until(&mut watcher, "b.rs").await, both);
        // A file that is replaced, as editors do, and one that is removed.
        fs::write(file("new"), "x").unwrap();
        fs::rename(file("new"), file("b.rs")).unwrap();
        assert!(until(&mut watcher, "b.rs").await.is_subset(&both));
        fs::remove_file(file("src/a.rs")).unwrap();
        assert!(until(&mut watcher, "src/a.rs").await.is_subset(&both));
    }

    #[tokio::test]
    async fn a_change_of_the_ignored_files_takes_effect() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        fs::write(file(".gitignore"), "a\n").unwrap();
        let mut watcher = Watcher::start(&WatchSpec::new(dir.path())).unwrap();
        fs::write(file("a"), "").unwrap();
        fs::write(file("last"), "").unwrap();
        let changed = until(&mut watcher, "last").await;
        assert!(!changed.contains("a"), "{changed:?}");
        fs::write(file(".gitignore"), "b\n").unwrap();
        until(&mut watcher, ".gitignore").await;
        fs::write(file("b"), "").unwrap();
        fs::write(file("a"), "").unwrap();
        let changed = until(&mut watcher, "a").await;
        assert!(!changed.contains("b"), "{changed:?}");
    }

    #[test]
    fn the_nearest_ignore_file_below_the_repository_decides() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        fs::create_dir_all(file("repository/.git")).unwrap();
        fs::create_dir_all(file("repository/src")).unwrap();
        fs::write(file(".gitignore"), "outside\n").unwrap();
        fs::write(file("repository/.gitignore"), "*.log\nbuild/\n").unwrap();
        fs::write(file("repository/src/.gitignore"), "!kept.log\n").unwrap();
        let mut ignored = Ignored::default();
        for (path, is_folder, expected) in [
            ("repository/a.log", false, true),
            ("repository/src/a.log", false, true),
            ("repository/src/kept.log", false, false),
            ("repository/kept.log", false, true),
            ("repository/build", true, true),
            ("repository/build", false, false),
            // That of a folder above the repository doesn't count.
            ("repository/outside", false, false),
            ("outside", false, true),
            ("repository/.git/config", false, true),
            ("repository/.waypost/logs/a", false, true),
        ] {
            assert_eq!(ignored.contains(&file(path), is_folder), expected, "{path}");
        }
    }

    #[tokio::test]
    async fn a_new_folder_is_watched_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let spec = WatchSpec::new(dir.path());
        let mut watcher = Watcher::start(&spec).unwrap();
        fs::create_dir_all(dir.path().join("new/deep")).unwrap();
        // The first change makes the watcher look at the new folder.
        fs::write(dir.path().join("first"), "").unwrap();
        until(&mut watcher, "first").await;
        fs::write(dir.path().join("new/deep/file"), "").unwrap();
        until(&mut watcher, "new/deep/file").await;
    }

    #[test]
    fn a_folder_that_is_missing_is_an_error() {
        let error = Watcher::start(&WatchSpec::new("/nonexistent"))
            .err()
            .unwrap();
        assert!(error.starts_with("can't watch /nonexistent: "), "{error}");
    }
}
