//! Format, lint, docs, test: thin words for cargo, the same on a desk and in CI.

use std::process::Command;
use std::time::SystemTime;

use crate::shell::{self, Result};
use crate::tools;

/// Settings of the person or the cluster that would change what a test sees.
const AMBIENT: &[&str] = &[
    "CONSUL_CACERT",
    "CONSUL_HOST",
    "CONSUL_HTTP_ADDR",
    "CONSUL_HTTP_SSL",
    "CONSUL_HTTP_TOKEN",
    "CONSUL_HTTP_TOKEN_FILE",
    "CONSUL_NAMESPACE",
    "CONSUL_PORT",
    "CONSUL_TOKEN",
    "ENVIRONMENT",
    "KUBECONFIG",
    "KUBERNETES_NAMESPACE",
    "KUBERNETES_SERVICE_HOST",
    "KUBERNETES_SERVICE_PORT",
    "SERVICE_DISCOVERY_CONFIG_FILE",
    "SERVICE_DISCOVERY_PROVIDER",
    "SERVICE_REGISTRY_HOST",
    "SERVICE_REGISTRY_PORT",
];

pub(crate) fn format() -> Result {
    shell::run(cargo("fmt").arg("--all"))
}

pub(crate) fn check_format() -> Result {
    shell::run(cargo("fmt").args(["--all", "--check"]))
}

pub(crate) fn lint() -> Result {
    shell::run(
        cargo("clippy")
            .args(["--workspace", "--all-targets", "--all-features"])
            .args(["--", "-D", "warnings"]),
    )
}

pub(crate) fn docs() -> Result {
    shell::run(
        cargo("doc")
            .args(["--workspace", "--all-features", "--no-deps"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )
}

/// `args` are cargo's own: packages, targets, and after `--` a filter for the test's name.
pub(crate) fn test(args: &[String]) -> Result {
    let tools = tools::setup()?;
    let mut command = cargo("test");
    if !selects_packages(args) {
        command.arg("--workspace");
    }
    command.arg("--all-features").args(args);
    for name in AMBIENT {
        command.env_remove(name);
    }
    // A test talks to its own machine, whatever proxy cargo needs to fetch a crate.
    for name in ["NO_PROXY", "no_proxy"] {
        let mut hosts = std::env::var(name).unwrap_or_default();
        if !hosts.is_empty() {
            hosts.push(',');
        }
        command.env(name, hosts + "127.0.0.1,localhost,::1");
    }
    shell::run(command.envs(tools.environment()))
}

/// What fails fastest comes first. Clippy and the docs need only the dependencies' metadata, and
/// share it; the tests compile everything once more, to code.
pub(crate) fn ci() -> Result {
    let tests = || test(&["--no-fail-fast".to_owned()]);
    let steps: [(&str, &dyn Fn() -> Result); 4] = [
        ("fmt", &check_format),
        ("lint", &lint),
        ("docs", &docs),
        ("test", &tests),
    ];
    for (name, step) in steps {
        let start = SystemTime::now();
        step().map_err(|reason| format!("{name}: {reason}"))?;
        let seconds = start.elapsed().unwrap_or_default().as_secs();
        eprintln!("xtask: {name} passed in {seconds} s");
    }
    Ok(())
}

fn cargo(subcommand: &str) -> Command {
    let program = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(program);
    command.arg(subcommand).current_dir(shell::workspace());
    if std::env::var_os("CI").is_some() {
        // Nobody builds twice there, and a lock file that is behind is an error.
        command.env("CARGO_INCREMENTAL", "0");
        if subcommand != "fmt" {
            command.arg("--locked");
        }
    }
    command
}

fn selects_packages(args: &[String]) -> bool {
    args.iter()
        .take_while(|arg| *arg != "--")
        .any(|arg| arg == "--workspace" || arg.starts_with("--package") || arg.starts_with("-p"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selects(line: &str) -> bool {
        selects_packages(
            &line
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn the_whole_workspace_is_tested_unless_a_package_is_named() {
        assert!(!selects(""));
        assert!(!selects("--no-fail-fast -- -p"));
        assert!(selects("-p waypost -- filter"));
        assert!(selects("-pwaypost"));
        assert!(selects("--package=waypost"));
    }
}
