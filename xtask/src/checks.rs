//! The checks that must pass before a merge. They call cargo in the same way locally and in CI.

use std::process::Command;
use std::time::SystemTime;

use crate::shell::Result;
use crate::{commands, packages, public_api, python, shell, test_environment, tools};

/// The type checker for scripts: npm package and version.
const TYPE_CHECKER: (&str, &str) = ("typescript", "5.9.3");

pub(crate) fn format() -> Result {
    shell::run(cargo("fmt").arg("--all"))?;
    python::format(&[])
}

pub(crate) fn check_format() -> Result {
    shell::run(cargo("fmt").args(["--all", "--check"]))?;
    python::format(&["--check"])
}

pub(crate) fn lint() -> Result {
    shell::run(
        cargo("clippy")
            .args(["--workspace", "--all-targets", "--all-features"])
            .args(["--", "-D", "warnings"]),
    )?;
    scripts()?;
    python::lint()
}

/// Checks the types in the scripts of the dashboard, if npm is available to fetch the checker.
fn scripts() -> Result {
    let Some(npm) = tools::npm::find() else {
        eprintln!("xtask: the scripts of the dashboard are not checked, because npm was not found");
        return Ok(());
    };
    let modules = tools::npm::package(&npm, TYPE_CHECKER)?;
    let project = shell::workspace().join("crates/waypost-dashboard/jsconfig.json");
    shell::run(
        Command::new(modules.join(".bin/tsc"))
            .arg("--project")
            .arg(project),
    )
}

/// Checks each library with no feature, and with each of its features alone.
pub(crate) fn features() -> Result {
    for package in packages::published()? {
        let alone = package.features.iter().map(Some);
        let choices = std::iter::once(None).chain(alone);
        for feature in choices.skip(usize::from(package.features.is_empty())) {
            let mut command = cargo("clippy");
            command.args(["--package", &package.name, "--no-default-features"]);
            command.args(feature.map(|name| format!("--features={name}")));
            // The version of the Kubernetes API, which is otherwise chosen by the program.
            command.env("K8S_OPENAPI_ENABLED_VERSION", "1.33");
            shell::run(command.args(["--", "-D", "warnings"]))?;
        }
    }
    Ok(())
}

/// Builds the archives that `cargo publish` would upload, without compiling them.
pub(crate) fn package() -> Result {
    let mut command = cargo("package");
    command.args(["--no-verify", "--allow-dirty"]);
    for package in packages::published()? {
        command.args(["--package", &package.name]);
    }
    shell::run(&mut command)
}

pub(crate) fn docs() -> Result {
    shell::run(
        cargo("doc")
            .args(["--workspace", "--all-features", "--no-deps"])
            .env("RUSTDOCFLAGS", "-D warnings"),
    )
}

/// Runs tests. `args` are arguments of `cargo test`.
pub(crate) fn test(args: &[String]) -> Result {
    let tools = tools::setup()?;
    let mut command = cargo("test");
    if !selects_packages(args) {
        command.arg("--workspace");
    }
    command.arg("--all-features").args(args);
    test_environment::isolate(&mut command);
    shell::run(command.envs(tools.environment()))?;
    if selects_packages(args) || args.iter().any(|arg| arg == "--") {
        return Ok(());
    }
    // The program that the tests above have built.
    python::test(
        &shell::workspace().join("target/debug/waypost"),
        tools.consul(),
        &[],
    )
}

/// Runs the tests of the Python package alone.
pub(crate) fn test_python(args: &[String]) -> Result {
    let consul = tools::consul()?;
    python::test(&python::debug_program()?, &consul, args)
}

/// Runs the simulation of the whole system. `args` are its arguments.
pub(crate) fn simulate(args: &[String]) -> Result {
    let mut command = cargo("run");
    command.args([
        "--quiet",
        "--profile",
        "simulation",
        "-p",
        "waypost-simulation",
        "--",
    ]);
    shell::run(command.args(args))
}

/// Runs the fuzz tests with this number of inputs each, instead of a few thousand. `names` select tests.
pub(crate) fn fuzz(inputs: &str, names: &[String]) -> Result {
    if inputs.parse::<u64>().is_err() {
        return Err(format!("fuzz: {inputs:?} is not a number of inputs"));
    }
    let mut command = cargo("test");
    command.args(["--profile", "simulation", "--all-features", "--lib"]);
    command.args([
        "-p",
        "waypost",
        "-p",
        "waypost-agent",
        "-p",
        "waypost-gateway",
    ]);
    command.arg("--");
    if names.is_empty() {
        command.arg("fuzz::");
    }
    command.args(names);
    shell::run(command.env("WAYPOST_FUZZ_INPUTS", inputs))
}

/// Runs all checks, quick ones first.
pub(crate) fn ci() -> Result {
    let tests = || test(&["--no-fail-fast".to_owned()]);
    let public_api = || {
        if public_api::is_supported() {
            public_api::check()
        } else {
            Ok(())
        }
    };
    let simulation = || simulate(&[]);
    let steps: [(&str, &dyn Fn() -> Result); 9] = [
        ("fmt", &check_format),
        ("package", &package),
        ("lint", &lint),
        ("features", &features),
        ("public-api", &public_api),
        ("docs", &docs),
        ("simulate", &simulation),
        ("test", &tests),
        ("commands", &commands::check),
    ];
    for (name, step) in steps {
        let start = SystemTime::now();
        step().map_err(|reason| format!("{name}: {reason}"))?;
        let seconds = start.elapsed().unwrap_or_default().as_secs();
        eprintln!("xtask: {name} passed in {seconds} s");
    }
    Ok(())
}

/// A cargo command in the root of the workspace.
fn cargo(subcommand: &str) -> Command {
    let mut command = shell::cargo(subcommand);
    if std::env::var_os("CI").is_some() {
        // Nothing is built twice there, and an outdated Cargo.lock is an error.
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
