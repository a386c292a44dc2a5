//! `cargo xtask dist` with the program that the tests have built.

#![allow(clippy::unwrap_used)] // a panic fails the test

use std::fs;
use std::path::Path;
use std::process::Command;

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}{errors}");
    text
}

#[test]
fn the_archive_and_the_package_contain_the_program_with_what_belongs_to_it() {
    let xtask = Path::new(env!("CARGO_BIN_EXE_xtask"));
    let program = xtask.with_file_name("waypost");
    assert!(
        program.is_file(),
        "{} is missing: cargo build",
        program.display()
    );
    let out = xtask.with_file_name("dist-test");
    let dist = [
        "dist",
        "--program",
        program.to_str().unwrap(),
        "--out",
        out.to_str().unwrap(),
    ];
    let printed = run(Command::new(xtask).args(dist));
    // After what the programs print that it runs.
    let files: Vec<&Path> = printed
        .lines()
        .map(Path::new)
        .filter(|path| path.is_file())
        .collect();
    let archive = *files.first().unwrap_or_else(|| panic!("{printed}"));

    let names = run(Command::new("tar").arg("-tzf").arg(archive));
    let name = archive.file_name().unwrap().to_str().unwrap();
    let folder = name.strip_suffix(".tar.gz").unwrap();
    for file in [
        "waypost",
        "README.md",
        "LICENSE-MIT",
        "LICENSE-APACHE",
        "completions/_waypost",
        "completions/waypost.bash",
        "completions/waypost.fish",
        "man/man1/waypost.1",
        "man/man1/waypost-up.1",
    ] {
        let path = format!("{folder}/{file}");
        assert!(
            names.lines().any(|line| line == path),
            "no {path} in\n{names}"
        );
    }

    let unpacked = out.join("unpacked");
    fs::create_dir_all(&unpacked).unwrap();
    run(Command::new("tar")
        .arg("-xzf")
        .arg(archive)
        .arg("-C")
        .arg(&unpacked));
    let version = run(Command::new(unpacked.join(folder).join("waypost")).arg("--version"));
    assert_eq!(
        version.trim(),
        format!("waypost {}", env!("CARGO_PKG_VERSION"))
    );

    let sums = fs::read_to_string(out.join("SHA256SUMS")).unwrap();
    assert!(sums.contains(name), "{sums}");
    if let Some(package) = files
        .iter()
        .find(|file| file.extension().is_some_and(|it| it == "deb"))
    {
        let contents = run(Command::new("dpkg-deb").arg("--contents").arg(package));
        for path in ["./usr/bin/waypost", "./usr/share/man/man1/waypost.1.gz"] {
            assert!(contents.contains(path), "no {path} in\n{contents}");
        }
        assert!(sums.contains(".deb"), "{sums}");
    }
    fs::remove_dir_all(out).unwrap();
}
