//! Packages from npm, in `target/tools`.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell;
use crate::shell::{Result, find_on_path};

/// `npm`, if it is on this machine.
pub(crate) fn find() -> Option<PathBuf> {
    let named = std::env::var_os("WAYPOST_NPM").map(PathBuf::from);
    named.or_else(|| find_on_path(&["npm"]))
}

/// The `node_modules` with a package of this name and version, which is fetched if it is missing.
pub(crate) fn package(npm: &Path, (name, version): (&str, &str)) -> Result<PathBuf> {
    let folder = shell::workspace().join(format!("target/tools/npm-{name}-{version}"));
    let modules = folder.join("node_modules");
    if !modules.join(name).join("package.json").is_file() {
        eprintln!("xtask: fetching {name} {version} for Node");
        let package = format!("{name}@{version}");
        shell::output(
            Command::new(npm)
                .args([
                    "install",
                    "--no-save",
                    "--no-audit",
                    "--no-fund",
                    "--fetch-retries=5",
                    "--prefix",
                ])
                .arg(&folder)
                .arg(package),
        )?;
    }
    Ok(modules)
}
