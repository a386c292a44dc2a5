//! Finds the Consul binary on this machine.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::CommandError;

/// A working Consul binary.
pub(super) struct ConsulBinary {
    pub(super) path: PathBuf,
    /// The version, such as `1.8.7`.
    pub(super) version: String,
}

impl ConsulBinary {
    /// The binary that `CONSUL_BIN` names, or else the first `consul` on `PATH`; `None` if there is
    /// none.
    ///
    /// # Errors
    /// If `CONSUL_BIN` is set but is not a working Consul.
    pub(super) fn find() -> Result<Option<Self>, CommandError> {
        if let Some(path) = std::env::var_os("CONSUL_BIN").map(PathBuf::from) {
            let binary = Self::at(&path).ok_or_else(|| {
                CommandError::Other(format!(
                    "CONSUL_BIN: {} is not a working Consul",
                    path.display()
                ))
            })?;
            return Ok(Some(binary));
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let binary = std::env::split_paths(&path).find_map(|dir| Self::at(&dir.join("consul")));
        Ok(binary)
    }

    /// Like [`find`](Self::find), but if there is none, returns an error that says how to get Consul.
    pub(super) fn require() -> Result<Self, CommandError> {
        Self::find()?.ok_or_else(|| {
            CommandError::Other(
                "no `consul` on PATH; `waypost registry install` shows how to install it, and \
                 `waypost agent` runs a single-node registry without it"
                    .into(),
            )
        })
    }

    fn at(path: &Path) -> Option<Self> {
        let output = Command::new(path).arg("version").output().ok()?;
        let output = String::from_utf8(output.stdout).ok()?;
        let version = output.lines().next()?.strip_prefix("Consul v")?;
        Some(Self {
            path: path.to_owned(),
            version: version.to_owned(),
        })
    }
}
