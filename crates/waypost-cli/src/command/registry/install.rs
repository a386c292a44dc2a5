use std::fs;
use std::process::ExitCode;

use clap::Args;

use super::super::Outcome;
use super::consul::Program;

/// Say how to get Consul on this machine
///
/// Nothing is changed: the commands are for you to read and run. If it is there already, that is
/// said instead.
#[derive(Args)]
pub(crate) struct Install {}

impl Install {
    pub(super) fn run(self) -> Outcome {
        if let Some(program) = Program::find()? {
            println!(
                "Consul {} is at {}",
                program.version,
                program.path.display()
            );
            return Ok(ExitCode::SUCCESS);
        }
        let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
        println!("{}", advice(std::env::consts::OS, &release));
        Ok(ExitCode::SUCCESS)
    }
}

/// The commands for a system. They are those of the package managers' own pages.
fn advice(system: &str, release: &str) -> String {
    let is = |family: &str| {
        release.lines().any(|line| {
            let ids = line
                .strip_prefix("ID=")
                .or_else(|| line.strip_prefix("ID_LIKE="));
            ids.is_some_and(|ids| ids.trim_matches('"').split(' ').any(|id| id == family))
        })
    };
    let version = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let commands = if system == "macos" {
        "brew install hashicorp/tap/consul".to_owned()
    } else if system == "windows" {
        "winget install Hashicorp.Consul".to_owned()
    } else if is("debian") {
        let suite = version.unwrap_or("$(lsb_release -cs)").trim_matches('"');
        format!(
            "# HashiCorp's own repository, for Debian and Ubuntu:\n\
             wget -O- https://apt.releases.hashicorp.com/gpg | \
             sudo gpg --dearmor -o /usr/share/keyrings/hashicorp.gpg\n\
             echo \"deb [signed-by=/usr/share/keyrings/hashicorp.gpg] \
             https://apt.releases.hashicorp.com {suite} main\" | \
             sudo tee /etc/apt/sources.list.d/hashicorp.list\n\
             sudo apt-get update && sudo apt-get install consul"
        )
    } else if is("fedora") || is("rhel") {
        "sudo dnf install -y dnf-plugins-core\n\
         sudo dnf config-manager --add-repo \
         https://rpm.releases.hashicorp.com/fedora/hashicorp.repo\n\
         sudo dnf install -y consul"
            .to_owned()
    } else if is("arch") {
        "sudo pacman -S consul".to_owned()
    } else if is("alpine") {
        "sudo apk add consul  # from the community repository".to_owned()
    } else {
        "download it from https://developer.hashicorp.com/consul/install and put it on PATH"
            .to_owned()
    };
    format!(
        "{commands}\n\nThen: waypost registry start --dev\n\
         Without it: waypost agent, a registry of one node that is part of this program"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_system_has_its_own_commands() {
        let debian = "ID=ubuntu\nID_LIKE=debian\nVERSION_CODENAME=noble\n";
        for (system, release, word) in [
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
            let advice = advice(system, release);
            assert!(advice.contains(word), "{release}: {advice}");
            assert!(advice.contains("waypost agent"));
        }
    }
}
