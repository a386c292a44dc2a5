//! The release archive of this machine: the program with completions, man pages and licences; a Debian package if
//! `dpkg-deb` is installed; and their checksums.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell::{self, Result};

/// Shells, and the files that their completions are in.
const COMPLETIONS: [(&str, &str); 3] = [
    ("bash", "waypost.bash"),
    ("zsh", "_waypost"),
    ("fish", "waypost.fish"),
];
const DOCUMENTS: [&str; 4] = ["README.md", "CHANGELOG.md", "LICENSE-APACHE", "LICENSE-MIT"];

const USAGE: &str = "usage: cargo xtask dist [--program FILE] [--out DIRECTORY]";

/// Builds everything in `target/dist` or another folder, and returns the paths of what is to be published. `--program`
/// packs a program that is built already.
pub(crate) fn build(args: &[String]) -> Result<Vec<PathBuf>> {
    let mut program = None;
    let mut out = shell::workspace().join("target/dist");
    let mut args = args.iter();
    while let Some(option) = args.next() {
        let value = args.next().ok_or(USAGE)?;
        match option.as_str() {
            "--program" => program = Some(absolute(value)?),
            "--out" => out = absolute(value)?,
            _ => return Err(USAGE.to_owned()),
        }
    }
    let program = match program {
        Some(program) => program,
        None => compile()?,
    };
    let target = host()?;
    let name = format!("waypost-{}-{target}", env!("CARGO_PKG_VERSION"));
    let folder = out.join(&name);
    recreate(&folder)?;
    fill(&folder, &program)?;

    let archive = format!("{name}.tar.gz");
    let mut tar = Command::new("tar");
    if target.contains("linux") {
        // The same input makes the same archive.
        tar.args(["--sort=name", "--owner=0", "--group=0", "--numeric-owner"]);
    }
    shell::run(tar.args(["-czf", &archive, &name]).current_dir(&out))?;
    let mut files = vec![archive];
    if shell::find_on_path(&["dpkg-deb"]).is_some() {
        files.push(debian_package(&folder, &out)?);
    } else {
        eprintln!("xtask: no Debian package was built, because dpkg-deb was not found");
    }
    checksums(&out, &files)?;
    files.push("SHA256SUMS".to_owned());
    Ok(files.into_iter().map(|file| out.join(file)).collect())
}

/// Builds the program as it is published, says how large it is, and returns its path.
pub(crate) fn compile() -> Result<PathBuf> {
    let mut build = shell::cargo("rustc");
    build.args(["--profile", PROFILE, "--locked"]);
    build.args(["--package", "waypost-cli", "--bin", "waypost"]);
    build.args(["--features", "otlp"]);
    if folds_identical_code() {
        build.args(["--", "-C", FOLD]);
    }
    shell::run(&mut build)?;
    let program = shell::workspace()
        .join("target")
        .join(PROFILE)
        .join("waypost");
    let bytes = fs::metadata(&program).map_err(at(&program))?.len();
    eprintln!("xtask: the program's size is {:.1} MB", bytes as f64 / 1e6);
    Ok(program)
}

/// The profile in `Cargo.toml`. Archives are put into its folder, too.
const PROFILE: &str = "dist";

/// Makes the linker keep one of several functions with identical code, such as those of a generic function for
/// several types. lld and gold know this option.
const FOLD: &str = "link-arg=-Wl,--icf=all";

/// Whether the linker of this machine knows [`FOLD`]: tries it with an empty library.
fn folds_identical_code() -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let mut link = Command::new(rustc);
    link.args([
        "--crate-type",
        "cdylib",
        "--crate-name",
        "empty",
        "-C",
        FOLD,
    ]);
    // Reads the source from stdin, which is empty.
    link.arg("--out-dir")
        .arg(shell::workspace().join("target/linker"))
        .arg("-");
    shell::output(&mut link).is_ok()
}

/// Puts everything that belongs to the program into a folder.
fn fill(folder: &Path, program: &Path) -> Result {
    let own = folder.join("waypost");
    copy(program, &own)?;
    if shell::find_on_path(&["strip"]).is_some() {
        shell::run(Command::new("strip").arg(&own))?;
    }
    for document in DOCUMENTS {
        copy(&shell::workspace().join(document), &folder.join(document))?;
    }
    let completions = folder.join("completions");
    recreate(&completions)?;
    for (name, file) in COMPLETIONS {
        let script = shell::output(Command::new(&own).args(["completions", name]))?;
        let path = completions.join(file);
        fs::write(&path, script).map_err(at(&path))?;
    }
    let man = folder.join("man/man1");
    recreate(&man)?;
    shell::run(Command::new(&own).args(["man", "--out"]).arg(man))
}

/// Builds a Debian package from the archive's folder. Returns the name of its file.
fn debian_package(folder: &Path, out: &Path) -> Result<String> {
    let architecture = shell::output(Command::new("dpkg").arg("--print-architecture"))?;
    let architecture = architecture.trim();
    let version = env!("CARGO_PKG_VERSION");
    let root = out.join("debian");
    recreate(&root)?;
    let into = |path: &str| -> Result<PathBuf> {
        let path = root.join(path);
        let parent = path.parent().unwrap_or(&root);
        fs::create_dir_all(parent).map_err(at(parent))?;
        Ok(path)
    };
    copy(&folder.join("waypost"), &into("usr/bin/waypost")?)?;
    for (name, path) in [
        (
            "waypost.bash",
            "usr/share/bash-completion/completions/waypost",
        ),
        ("_waypost", "usr/share/zsh/vendor-completions/_waypost"),
        (
            "waypost.fish",
            "usr/share/fish/vendor_completions.d/waypost.fish",
        ),
    ] {
        copy(&folder.join("completions").join(name), &into(path)?)?;
    }
    for entry in fs::read_dir(folder.join("man/man1")).map_err(at(folder))? {
        let page = entry.map_err(at(folder))?;
        let name = page.file_name().to_string_lossy().into_owned();
        let path = into(&format!("usr/share/man/man1/{name}"))?;
        copy(&page.path(), &path)?;
        shell::output(Command::new("gzip").args(["-9n"]).arg(path))?;
    }
    copy(
        &folder.join("README.md"),
        &into("usr/share/doc/waypost/README.md")?,
    )?;
    let licence = |name: &str| fs::read_to_string(folder.join(name)).map_err(at(folder));
    let (mit, apache) = (licence("LICENSE-MIT")?, licence("LICENSE-APACHE")?);
    let copyright = into("usr/share/doc/waypost/copyright")?;
    let text =
        format!("Waypost is licensed under MIT or Apache-2.0, at your option.\n\n{mit}\n{apache}");
    fs::write(&copyright, text).map_err(at(&copyright))?;
    let control = into("DEBIAN/control")?;
    let text = format!(
        "Package: waypost\nVersion: {version}\nArchitecture: {architecture}\nDepends: libc6\n\
         Section: net\nPriority: optional\nMaintainer: The Waypost developers <maintainers@waypost.invalid>\n\
         Homepage: https://github.com/waypost/waypost\n\
         Description: Service discovery for microservices\n A registry, an API gateway and a dashboard in one program, which \
         runs your\n services locally and finds them in Consul and Kubernetes.\n"
    );
    fs::write(&control, text).map_err(at(&control))?;
    let file = format!("waypost_{version}_{architecture}.deb");
    shell::run(
        Command::new("dpkg-deb")
            .args(["-Zgzip", "--root-owner-group", "--build"])
            .arg(&root)
            .arg(out.join(&file)),
    )?;
    fs::remove_dir_all(&root).map_err(at(&root))?;
    Ok(file)
}

/// Writes `SHA256SUMS`, which `sha256sum -c` checks.
fn checksums(out: &Path, files: &[String]) -> Result {
    let mut command = match shell::find_on_path(&["sha256sum"]) {
        Some(program) => Command::new(program),
        None => {
            let mut command = Command::new("shasum");
            command.args(["-a", "256"]);
            command
        }
    };
    let sums = shell::output(command.args(files).current_dir(out))?;
    let path = out.join("SHA256SUMS");
    fs::write(&path, sums).map_err(at(&path))
}

/// The target triple of this machine, as in the names of Rust's own archives.
fn host() -> Result<String> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = shell::output(Command::new(rustc).arg("-vV"))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned)
        .ok_or_else(|| format!("rustc -vV names no host:\n{version}"))
}

fn recreate(folder: &Path) -> Result {
    if folder.exists() {
        fs::remove_dir_all(folder).map_err(at(folder))?;
    }
    fs::create_dir_all(folder).map_err(at(folder))
}

fn copy(from: &Path, to: &Path) -> Result {
    fs::copy(from, to).map(drop).map_err(at(from))
}

fn absolute(path: &str) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| format!("{path}: {error}"))
}

fn at(path: &Path) -> impl Fn(std::io::Error) -> String {
    let path = path.display().to_string();
    move |error| format!("{path}: {error}")
}
