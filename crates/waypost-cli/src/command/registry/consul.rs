use std::path::{Path, PathBuf};
use std::process::Command;

use crate::failure::Failure;

/// The Consul program of this machine.
pub(super) struct Program {
    pub(super) path: PathBuf,
    /// Such as `1.8.7`.
    pub(super) version: String,
}

impl Program {
    /// The one that `CONSUL_BIN` names, or the first on `PATH`.
    pub(super) fn find() -> Result<Option<Self>, Failure> {
        if let Some(named) = std::env::var_os("CONSUL_BIN").map(PathBuf::from) {
            return match Self::at(&named) {
                Some(program) => Ok(Some(program)),
                None => Err(Failure::Other(format!(
                    "CONSUL_BIN: {} is no Consul that runs",
                    named.display()
                ))),
            };
        }
        let folders = std::env::var_os("PATH").unwrap_or_default();
        let mut candidates = std::env::split_paths(&folders).map(|folder| folder.join("consul"));
        Ok(candidates.find_map(|path| Self::at(&path)))
    }

    /// The same, or what to do without one.
    pub(super) fn find_or_advise() -> Result<Self, Failure> {
        Self::find()?.ok_or_else(|| {
            Failure::Other(
                "there is no `consul` on PATH; `waypost registry install` says how to get it, and \
                 `waypost agent` is a registry of one node that needs none"
                    .into(),
            )
        })
    }

    fn at(path: &Path) -> Option<Self> {
        let said = Command::new(path).arg("version").output().ok()?;
        let said = String::from_utf8(said.stdout).ok()?;
        let version = said.lines().next()?.strip_prefix("Consul v")?;
        Some(Self {
            path: path.to_owned(),
            version: version.to_owned(),
        })
    }
}
