//! Follows changes to a file's content.

use std::path::{Path, PathBuf};
use std::sync::Weak;
use std::time::Duration;

use tokio::time::sleep;

/// How often a file is read.
pub(super) const FILE_INTERVAL: Duration = Duration::from_secs(1);

/// # Errors
/// Why it can't be read, without its name.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    std::fs::read(path).map_err(|error| error.to_string())
}

/// Passes each change of a file's content to `change`, until `user` is dropped. `applied` is the content
/// that is in use.
pub(super) async fn follow<T>(
    user: Weak<T>,
    path: PathBuf,
    applied: Vec<u8>,
    change: impl Fn(&T, Result<Vec<u8>, String>),
) {
    let mut applied = Ok(applied);
    loop {
        sleep(FILE_INTERVAL).await;
        let Some(user) = user.upgrade() else {
            return;
        };
        let content = read(&path);
        if content != applied {
            change(&user, content.clone());
            applied = content;
        }
    }
}
