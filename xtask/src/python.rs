//! The Python package: its wheel, and its tests.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell::Result;
use crate::{dist, shell, test_environment, tools};

/// Builds a wheel for this machine in `target/wheels`, with the `waypost` program in it. Returns its path.
pub(crate) fn wheel() -> Result<PathBuf> {
    let program = dist::compile()?;
    build_wheel(&venv()?, &program, &["--release"], &target().join("wheels"))
}

/// Formats the Rust code of the package, or checks its format.
pub(crate) fn format(args: &[&str]) -> Result {
    shell::run(cargo("fmt").args(args))
}

/// Runs clippy on the extension module.
pub(crate) fn lint() -> Result {
    shell::run(
        cargo("clippy")
            .args(["--all-targets", "--target-dir"])
            .arg(target())
            // The stable ABI of Python needs no interpreter, and a module is not linked to one.
            .env("PYO3_NO_PYTHON", "1")
            .env("PYO3_BUILD_EXTENSION_MODULE", "1")
            .args(["--", "-D", "warnings"]),
    )
}

/// Builds a wheel with the given `waypost` program, installs it in the virtual environment, and runs the
/// tests against it. `args` are arguments of pytest.
pub(crate) fn test(program: &Path, consul: &Path, args: &[String]) -> Result {
    let venv = venv()?;
    let wheel = build_wheel(&venv, program, &[], &target().join("python/wheels"))?;
    shell::run(
        pip(&venv)
            .args(["install", "--no-deps", "--no-index", "--force-reinstall"])
            .arg(&wheel),
    )?;
    shell::run(
        Command::new(venv.join("bin/mypy"))
            .args(["--cache-dir"])
            .arg(target().join("python/mypy"))
            .args(["waypost", "tests", "examples", "benches"])
            .current_dir(folder()),
    )?;
    // The type stubs against the module.
    shell::run(
        Command::new(venv.join("bin/stubtest"))
            .arg("waypost._waypost")
            .current_dir(&venv),
    )?;
    let mut pytest = Command::new(venv.join("bin/pytest"));
    test_environment::isolate(&mut pytest);
    shell::run(
        pytest
            .args(["-p", "no:cacheprovider"])
            .args(args)
            .env("CONSUL_BIN", consul)
            .current_dir(folder()),
    )
}

/// The program that the tests of the other packages have built, or a new one.
pub(crate) fn debug_program() -> Result<PathBuf> {
    let program = target().join("debug/waypost");
    shell::run(shell::cargo("build").args(["--package", "waypost-cli"]))?;
    Ok(program)
}

fn build_wheel(venv: &Path, program: &Path, profile: &[&str], to: &Path) -> Result<PathBuf> {
    // maturin copies this folder into the scripts of the wheel.
    let scripts = folder().join("data/scripts");
    let copy = scripts.join("waypost");
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |error| format!("{path}: {error}")
    };
    fs::create_dir_all(&scripts).map_err(failed(&scripts))?;
    fs::copy(program, &copy).map_err(failed(program))?;
    if shell::find_on_path(&["strip"]).is_some() {
        shell::run(Command::new("strip").arg(&copy))?;
    }
    let _ = fs::remove_dir_all(to);
    let mut maturin = Command::new(venv.join("bin/maturin"));
    maturin
        .args(["build", "--strip"])
        .args(profile)
        .arg("--interpreter")
        .arg(venv.join("bin/python"))
        .arg("--target-dir")
        .arg(target())
        .arg("--out")
        .arg(to)
        .current_dir(folder());
    shell::run(&mut maturin)?;
    let mut files = fs::read_dir(to).map_err(failed(to))?;
    let wheel = files.find_map(|file| {
        let path = file.ok()?.path();
        path.extension()
            .is_some_and(|end| end == "whl")
            .then_some(path)
    });
    wheel.ok_or_else(|| format!("{}: maturin has built no wheel", to.display()))
}

/// A virtual environment with `requirements.txt` installed; made again when that changes.
fn venv() -> Result<PathBuf> {
    let requirements = folder().join("requirements.txt");
    let wanted = fs::read_to_string(&requirements)
        .map_err(|error| format!("{}: {error}", requirements.display()))?;
    let venv = target().join("python/venv");
    let installed = venv.join("requirements.txt");
    if fs::read_to_string(&installed).is_ok_and(|text| text == wanted) {
        return Ok(venv);
    }
    let python = tools::python()?;
    shell::run(
        Command::new(python)
            .args(["-m", "venv", "--clear"])
            .arg(&venv),
    )?;
    shell::run(
        pip(&venv)
            .args(["install", "--retries", "10", "--requirement"])
            .arg(&requirements),
    )?;
    fs::write(&installed, wanted).map_err(|error| format!("{}: {error}", installed.display()))?;
    Ok(venv)
}

fn pip(venv: &Path) -> Command {
    let mut pip = Command::new(venv.join("bin/python"));
    pip.args(["-m", "pip", "--quiet", "--disable-pip-version-check"]);
    pip
}

fn cargo(subcommand: &str) -> Command {
    let mut command = shell::cargo(subcommand);
    command
        .arg("--manifest-path")
        .arg(folder().join("Cargo.toml"));
    command
}

fn folder() -> PathBuf {
    shell::workspace().join("python")
}

fn target() -> PathBuf {
    shell::workspace().join("target")
}
