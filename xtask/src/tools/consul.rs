//! A real Consul, for the tests of the Consul provider and of the embedded registry.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::debian;
use crate::shell;
use crate::shell::Result;

/// The oldest version that the tests work with.
const OLDEST: (u32, u32) = (1, 8);
/// The last Debian release with a Consul package (1.8.7).
const SUITE: &str = "bullseye";
/// The hash of that package on amd64. Apt verifies each package against the signed index; the hash also
/// ensures that it is the package we test with.
const AMD64_SHA256: &str = "e4e888bba104daba1d9161f49bfc52649a7e4efd45b1a7ead5bc54f2cb9c89d9";

/// The first usable one of: `CONSUL_BIN`, `PATH`, an earlier download, a new download.
pub(crate) fn find_or_fetch() -> Result<PathBuf> {
    if let Some(named) = std::env::var_os("CONSUL_BIN").map(PathBuf::from) {
        check(&named).map_err(|reason| format!("CONSUL_BIN: {reason}"))?;
        return Ok(named);
    }
    let cached = shell::workspace().join("target/tools/bin/consul");
    let on_path = shell::find_on_path(&["consul"]);
    if let Some(found) = on_path
        .into_iter()
        .chain([cached.clone()])
        .find(|file| check(file).is_ok())
    {
        return Ok(found);
    }
    if !debian::is_debian() {
        let (major, minor) = OLDEST;
        return Err(format!(
            "the tests need Consul {major}.{minor} or newer: install it on PATH, or set CONSUL_BIN to its \
             path"
        ));
    }
    fetch(&cached)?;
    check(&cached)?;
    Ok(cached)
}

fn check(program: &Path) -> Result {
    let text = shell::output(Command::new(program).arg("version"))?;
    let (major, minor) = OLDEST;
    match version(&text) {
        Some(found) if found >= OLDEST => Ok(()),
        Some((a, b)) => Err(format!(
            "{} is Consul {a}.{b}; {major}.{minor} or newer is needed",
            program.display()
        )),
        None => Err(format!(
            "{}: `version` does not print a version of Consul",
            program.display()
        )),
    }
}

/// Major and minor version from `Consul v1.8.7…`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut parts = text.lines().next()?.strip_prefix("Consul v")?.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn fetch(to: &Path) -> Result {
    eprintln!("xtask: fetching Consul from the machine's Debian mirror");
    debian::fetch_program(SUITE, "consul", AMD64_SHA256, to)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_the_output_of_consul_version() {
        assert_eq!(
            version("Consul v1.8.7\nProtocol 2 spoken by default"),
            Some((1, 8))
        );
        assert_eq!(version("Consul v1.21.0-dev\nRevision abc"), Some((1, 21)));
        assert_eq!(version("Vault v1.8.7"), None);
        assert!((1, 10) > OLDEST && (1, 7) < OLDEST);
    }
}
