//! Listings of the public API of the libraries, in `public-api/`, so that a review shows what changes.

use std::fs;
use std::path::PathBuf;

use crate::shell::{self, Result};

/// The crates whose API applications and providers use.
const CRATES: [&str; 5] = [
    "waypost",
    "waypost-consul",
    "waypost-core",
    "waypost-dns",
    "waypost-kubernetes",
];

/// The toolchain whose rustdoc writes the format that `xtask/public-api` reads.
const TOOLCHAIN: &str = "rustc 1.95.";

/// Fails if a listing is out of date.
pub(crate) fn check() -> Result {
    let mut outdated = Vec::new();
    for name in CRATES {
        let committed = fs::read_to_string(file(name)).unwrap_or_default();
        if committed != listing(name)? {
            outdated.push(name);
        }
    }
    if outdated.is_empty() {
        return Ok(());
    }
    Err(format!(
        "the public API of {} has changed; if that is intended, run `cargo xtask public-api --update` \
         and commit public-api/",
        outdated.join(", ")
    ))
}

/// Writes the listings.
pub(crate) fn update() -> Result {
    for name in CRATES {
        let path = file(name);
        fs::write(&path, listing(name)?).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}

/// Whether this toolchain can make the listings.
pub(crate) fn is_supported() -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = shell::output(std::process::Command::new(rustc).arg("--version"));
    version.is_ok_and(|version| version.starts_with(TOOLCHAIN))
}

fn file(name: &str) -> PathBuf {
    shell::workspace().join(format!("public-api/{name}.txt"))
}

fn listing(name: &str) -> Result<String> {
    let target = shell::workspace().join("target/public-api");
    // The JSON output of rustdoc is unstable, so unstable options have to be enabled.
    let mut rustdoc = shell::cargo("rustdoc");
    rustdoc
        .args(["--package", name, "--lib", "--all-features", "--target-dir"])
        .arg(&target)
        .args(["--", "-Z", "unstable-options", "--output-format", "json"])
        .env("RUSTC_BOOTSTRAP", "1")
        // k8s-openapi leaves the version of the Kubernetes API to programs.
        .env("K8S_OPENAPI_ENABLED_VERSION", "1.33");
    shell::run(&mut rustdoc)?;
    let json = target.join(format!("doc/{}.json", name.replace('-', "_")));
    let manifest = shell::workspace().join("xtask/public-api/Cargo.toml");
    let mut print = shell::cargo("run");
    print
        .args(["--quiet", "--locked", "--manifest-path"])
        .arg(manifest)
        .arg("--target-dir")
        .arg(&target)
        .arg("--")
        .arg(json);
    shell::output(&mut print)
}
