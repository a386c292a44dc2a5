//! Checks that the workspace builds with the lowest versions of dependencies that the manifests allow.

use std::fs;
use std::path::Path;
use std::process::Command;

use crate::shell::{self, Result};

/// Resolves direct dependencies to their lowest versions in a copy of the workspace, and checks that.
/// The resolver option is unstable, so unstable features of cargo have to be enabled.
pub(crate) fn check() -> Result {
    let copy = shell::workspace().join("target/minimal-versions/source");
    copy_workspace(&copy)?;
    shell::run(
        shell::cargo("update")
            .args(["-Z", "direct-minimal-versions"])
            .env("RUSTC_BOOTSTRAP", "1")
            .current_dir(&copy),
    )?;
    shell::run(
        shell::cargo("check")
            .args(["--workspace", "--all-features", "--target-dir"])
            .arg(shell::workspace().join("target/minimal-versions"))
            .current_dir(&copy),
    )
}

/// Copies the files tracked by git, so that this workspace keeps its `Cargo.lock`.
fn copy_workspace(to: &Path) -> Result {
    let mut list = Command::new("git");
    let files = shell::output(list.arg("ls-files").current_dir(shell::workspace()))?;
    let _ = fs::remove_dir_all(to);
    for file in files.lines() {
        let (source, target) = (shell::workspace().join(file), to.join(file));
        let directory = target.parent().unwrap_or(to);
        fs::create_dir_all(directory)
            .and_then(|()| fs::copy(&source, &target))
            .map_err(|error| format!("{}: {error}", target.display()))?;
    }
    Ok(())
}
