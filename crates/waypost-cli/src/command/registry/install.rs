//! `waypost registry install`

use std::fs;
use std::process::ExitCode;

use clap::Args;

use crate::command::consul_binary::ConsulBinary;
use crate::error::CommandResult;
use crate::terminal::{print_line, print_verbatim};

/// Show how to install Consul on this machine
///
/// Prints the commands to run, and installs nothing. If Consul is installed, prints its version and
/// path.
#[derive(Args)]
pub(crate) struct Install {}

impl Install {
    pub(super) fn run(self) -> CommandResult {
        if let Some(consul) = ConsulBinary::find()? {
            let (version, path) = (consul.version, consul.path.display());
            print_line(format_args!("Consul {version} is at {path}"))?;
        } else {
            let os_release = fs::read_to_string("/etc/os-release").unwrap_or_default();
            print_verbatim(&format!(
                "{}\n",
                instructions(std::env::consts::OS, &os_release)
            ))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The commands for an operating system, as documented by its package manager.
fn instructions(os: &str, os_release: &str) -> String {
    let is_like = |family: &str| {
        os_release.lines().any(|line| {
            let ids = line
                .strip_prefix("ID=")
                .or_else(|| line.strip_prefix("ID_LIKE="));
            ids.is_some_and(|ids| ids.trim_matches('"').split(' ').any(|id| id == family))
        })
    };
    let codename = os_release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let commands = if os == "macos" {
        "brew install hashicorp/tap/consul".to_owned()
    } else if os == "windows" {
        "winget install Hashicorp.Consul".to_owned()
    } else if is_like("debian") {
        let suite = codename.unwrap_or("$(lsb_release -cs)").trim_matches('"');
        format!(
            "# HashiCorp's package repository for Debian and Ubuntu:\n\
             wget -O- https://apt.releases.hashicorp.com/gpg | \
             sudo gpg --dearmor -o /usr/share/keyrings/hashicorp.gpg\n\
             echo \"deb [signed-by=/usr/share/keyrings/hashicorp.gpg] \
             https://apt.releases.hashicorp.com {suite} main\" | \
             sudo tee /etc/apt/sources.list.d/hashicorp.list\n\
             sudo apt-get update && sudo apt-get install consul"
        )
    } else if is_like("fedora") || is_like("rhel") {
        "sudo dnf install -y dnf-plugins-core\n\
         sudo dnf config-manager --add-repo \
         https://rpm.releases.hashicorp.com/fedora/hashicorp.repo\n\
         sudo dnf install -y consul"
            .to_owned()
    } else if is_like("arch") {
        "sudo pacman -S consul".to_owned()
    } else if is_like("alpine") {
        "sudo apk add consul  # from the community repository".to_owned()
    } else {
        "download it from https://developer.hashicorp.com/consul/install and put it on PATH"
            .to_owned()
    };
    format!(
        "{commands}\n\nThen start it with: waypost registry start --dev\n\
         Or use the single-node registry of this program: waypost agent"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_operating_system_has_its_own_commands() {
        let debian = "ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n";
        for (os, os_release, expected) in [
            ("linux", debian, "hashicorp.com noble main"),
            (
                "linux",
                "ID=debian\nVERSION_CODENAME=bookworm",
                "bookworm main",
            ),
            (
                "linux",
                "ID=\"rocky\"\nID_LIKE=\"rhel centos fedora\"",
                "dnf install",
            ),
            ("linux", "ID=alpine", "apk add"),
            ("linux", "ID=arch", "pacman"),
            ("linux", "", "put it on PATH"),
            ("macos", "", "brew install"),
        ] {
            let text = instructions(os, os_release);
            assert!(text.contains(expected), "{os_release}: {text}");
            assert!(text.contains("waypost agent"));
        }
    }
}
