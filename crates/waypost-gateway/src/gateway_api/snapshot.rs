//! The file in which the objects are kept, for a gateway that starts while the API server is down.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::objects::Objects;

/// The version of the file's format. A file of another version is ignored.
const VERSION: u32 = 1;

pub(super) struct SnapshotFile {
    path: PathBuf,
    saved: Option<String>,
    is_failing: bool,
}

#[derive(Deserialize, Serialize)]
struct Content<T> {
    version: u32,
    objects: T,
}

impl SnapshotFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            saved: None,
            is_failing: false,
        }
    }

    /// The objects in the file; `None` if there is no usable file.
    pub(super) fn read(&self) -> Option<Objects> {
        let path = self.path.display();
        let text = match std::fs::read_to_string(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => {
                tracing::warn!("{path}: {error}; the file is ignored");
                return None;
            }
        };
        match serde_json::from_str::<Content<Objects>>(&text) {
            Ok(content) if content.version == VERSION => Some(content.objects),
            Ok(content) => {
                let version = content.version;
                tracing::warn!("{path}: version {version} is not supported; the file is ignored");
                None
            }
            Err(error) => {
                tracing::warn!("{path}: {error}; the file is ignored");
                None
            }
        }
    }

    /// Replaces the file, if the objects have changed since it was saved.
    pub(super) async fn save(&mut self, objects: &Objects) {
        let content = Content {
            version: VERSION,
            objects,
        };
        let Ok(text) = serde_json::to_string(&content) else {
            return;
        };
        if self.saved.as_ref() == Some(&text) {
            return;
        }
        let (path, written) = (self.path.clone(), text.clone());
        let result = tokio::task::spawn_blocking(move || replace(&path, &written)).await;
        match result {
            Ok(Ok(())) => {
                self.saved = Some(text);
                self.is_failing = false;
            }
            Ok(Err(error)) if !self.is_failing => {
                self.is_failing = true;
                let path = self.path.display();
                tracing::warn!("{path}: {error}; HTTPRoutes are not kept for a restart");
            }
            _ => {}
        }
    }
}

/// Replaces a file in one step.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let mut file = std::fs::File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use waypost_testkit::Logs;

    use super::*;

    #[tokio::test]
    async fn objects_that_could_not_be_saved_are_saved_once_that_is_possible() {
        let (logs, _guard) = Logs::take();
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("state");
        let mut file = SnapshotFile::new(folder.join("routes.json"));
        let route = json!({ "metadata": { "namespace": "shop", "name": "orders" } });
        let objects: Objects = serde_json::from_value(json!({ "routes": [route] })).unwrap();
        for _ in 0..2 {
            file.save(&objects).await;
            assert!(file.is_failing);
        }
        let warnings = logs.lines(&["routes.json", "not kept for a restart"]);
        assert_eq!(warnings.len(), 1, "logged once: {warnings:?}");
        std::fs::create_dir(&folder).unwrap();
        file.save(&objects).await;
        assert!(!file.is_failing);
        assert_eq!(file.read().unwrap().routes, objects.routes);
    }

    #[test]
    fn a_file_that_can_not_be_used_is_ignored_with_a_warning_unless_there_is_none() {
        let (logs, _guard) = Logs::take();
        let folder = tempfile::tempdir().unwrap();
        let file = SnapshotFile::new(folder.path().join("routes.json"));
        assert!(file.read().is_none());
        assert_eq!(logs.lines(&["routes.json"]).len(), 0, "a first start");
        for (text, problem) in [
            (
                r#"{"version": 2, "objects": {}}"#,
                "version 2 is not supported",
            ),
            (r#"{"version": 1}"#, "missing field `objects`"),
            ("{", "EOF"),
        ] {
            std::fs::write(&file.path, text).unwrap();
            assert!(file.read().is_none(), "{text}");
            assert_eq!(logs.lines(&["WARN", problem]).len(), 1, "{text}");
        }
        std::fs::remove_file(&file.path).unwrap();
        std::fs::create_dir(&file.path).unwrap();
        assert!(file.read().is_none());
        assert_eq!(logs.lines(&["WARN", "routes.json"]).len(), 4);
    }
}
