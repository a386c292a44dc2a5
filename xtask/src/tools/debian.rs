//! Debian packages, fetched and verified by apt without changing the machine's apt configuration.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell;
use crate::shell::Result;

/// Mirrors sometimes fail.
const RETRY: [&str; 2] = ["-o", "Acquire::Retries=5"];

const OS_RELEASE: &str = "/etc/os-release";
const KEYRINGS: [&str; 2] = [
    "/usr/share/keyrings/debian-archive-keyring.gpg",
    "/usr/share/keyrings/debian-archive-keyring.pgp",
];

/// Whether this is Debian itself. Derivatives have other packages under the same names.
pub(crate) fn is_debian() -> bool {
    fs::read_to_string(OS_RELEASE).is_ok_and(|text| text.lines().any(|line| line == "ID=debian"))
}

pub(crate) fn is_root() -> bool {
    shell::output(Command::new("id").arg("-u")).is_ok_and(|uid| uid.trim() == "0")
}

fn architecture() -> Result<String> {
    let name = shell::output(Command::new("dpkg").arg("--print-architecture"))?;
    Ok(name.trim().to_owned())
}

/// Installs packages of the machine's release. Needs root.
pub(crate) fn install(packages: &[&str]) -> Result {
    shell::run(Command::new("apt-get").args(RETRY).args(["update", "-qq"]))?;
    shell::run(
        Command::new("apt-get")
            .args(RETRY)
            .args(["install", "-y", "-qq", "--no-install-recommends"])
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
}

/// Fetches the package `name` of another Debian release and copies its program `name` to `to`. The
/// package is unpacked, not installed, so no daemon starts and no user is added.
pub(crate) fn fetch_program(suite: &str, name: &str, amd64_sha256: &str, to: &Path) -> Result {
    let apt = PrivateApt::for_suite(suite)?;
    let package = apt.download(name)?;
    if architecture()? == "amd64" {
        expect_sha256(&package, amd64_sha256)?;
    }
    let unpacked = apt.unpack(&package)?.join("usr/bin").join(name);
    let folder = to.parent().unwrap_or(to);
    fs::create_dir_all(folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    // Copied, then renamed, so that an interrupted copy is never taken for the program.
    let partial = to.with_extension("partial");
    fs::copy(&unpacked, &partial)
        .and_then(|_| fs::rename(&partial, to))
        .map_err(|error| format!("{}: {error}", to.display()))
}

fn expect_sha256(file: &Path, expected: &str) -> Result {
    let printed = shell::output(Command::new("sha256sum").arg(file))?;
    let found = printed.split_whitespace().next().unwrap_or_default();
    if found == expected {
        Ok(())
    } else {
        Err(format!(
            "{}: sha256 is {found}, not {expected}",
            file.display()
        ))
    }
}

/// An apt with its own root directory and one suite, from the mirror that the machine uses. Nothing of
/// the machine's apt changes. Dropping it removes the directory.
struct PrivateApt {
    root: PathBuf,
}

impl PrivateApt {
    fn for_suite(suite: &str) -> Result<Self> {
        let root = std::env::temp_dir().join(format!("waypost-apt-{}", std::process::id()));
        let apt = Self { root };
        apt.create(suite)?;
        shell::output(apt.apt_get().arg("update"))?;
        Ok(apt)
    }

    /// Downloads a package. Apt verifies it against the signed index.
    fn download(&self, package: &str) -> Result<PathBuf> {
        let folder = self.root.join("download");
        shell::output(
            self.apt_get()
                .args(["download", package])
                .current_dir(&folder),
        )?;
        fs::read_dir(&folder)
            .map_err(|error| format!("{}: {error}", folder.display()))?
            .filter_map(|entry| entry.ok().map(|entry| entry.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .ok_or_else(|| format!("apt-get downloaded no package `{package}`"))
    }

    fn unpack(&self, package: &Path) -> Result<PathBuf> {
        let into = self.root.join("unpacked");
        shell::output(Command::new("dpkg-deb").arg("-x").arg(package).arg(&into))?;
        Ok(into)
    }

    fn create(&self, suite: &str) -> Result {
        let mirror = mirror()?;
        let architecture = architecture()?;
        let keyring = KEYRINGS
            .into_iter()
            .find(|path| Path::new(path).is_file())
            .ok_or("the package debian-archive-keyring is not installed")?;
        let sources = format!(
            "Types: deb\nURIs: {mirror}\nSuites: {suite}\nComponents: main\n\
             Architectures: {architecture}\nSigned-By: {keyring}\n"
        );
        let write = || -> std::io::Result<()> {
            for folder in [
                "etc/preferences.d",
                "etc/sources.list.d",
                "state/lists/partial",
                "cache/archives/partial",
                "download",
            ] {
                fs::create_dir_all(self.root.join(folder))?;
            }
            fs::write(self.root.join("state/status"), "")?;
            fs::write(self.root.join("etc/sources.list.d/suite.sources"), sources)
        };
        write().map_err(|error| format!("{}: {error}", self.root.display()))?;
        if is_root() {
            // Apt downloads as the user _apt, who must be able to write here.
            shell::output(Command::new("chown").args(["-R", "_apt"]).arg(&self.root))?;
        }
        Ok(())
    }

    fn apt_get(&self) -> Command {
        let root = self.root.display();
        let mut command = Command::new("apt-get");
        command.arg("-q").args(RETRY);
        for option in [
            format!("Dir::Etc={root}/etc"),
            "Dir::Etc::sourcelist=/dev/null".to_owned(),
            format!("Dir::Etc::sourceparts={root}/etc/sources.list.d"),
            "Dir::Etc::trustedparts=/dev/null".to_owned(),
            format!("Dir::State={root}/state"),
            format!("Dir::State::status={root}/state/status"),
            format!("Dir::Cache={root}/cache"),
            // The index of an archived release has expired.
            "Acquire::Check-Valid-Until=false".to_owned(),
            "Acquire::Languages=none".to_owned(),
            "Acquire::Retries=3".to_owned(),
        ] {
            command.arg("-o").arg(option);
        }
        command
    }
}

impl Drop for PrivateApt {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.root);
    }
}

/// The mirror of the machine's release, according to apt.
fn mirror() -> Result<String> {
    let format = "$(CREATED_BY) $(COMPONENT) $(CODENAME) $(SITE)";
    let targets =
        shell::output(Command::new("apt-get").args(["indextargets", "--format", format]))?;
    mirror_among(&targets).ok_or_else(|| "apt's sources name no Debian mirror".to_owned())
}

/// The site of the release itself: `-updates` and `-security` may be elsewhere.
fn mirror_among(targets: &str) -> Option<String> {
    targets.lines().find_map(
        |line| match line.split_whitespace().collect::<Vec<_>>()[..] {
            ["Packages", "main", codename, site] if !codename.contains('-') => {
                Some(site.to_owned())
            }
            _ => None,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mirror_is_that_of_the_release_itself() {
        let targets = "Packages main one-security http://security.test/debian\n\
                       DEP-11 main one http://wrong.test/debian\n\
                       Packages main one http://mirror.test/debian\n";
        assert_eq!(
            mirror_among(targets).as_deref(),
            Some("http://mirror.test/debian")
        );
        assert_eq!(mirror_among(""), None);
    }
}
