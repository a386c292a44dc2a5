//! Cargo.toml

use std::fs;
use std::path::{Path, PathBuf};

use toml::Table;

use super::candidate::Candidate;
use super::source_file;

const FILE: &str = "Cargo.toml";

/// The programs of a Cargo package, or of the members of a workspace.
pub(super) fn candidates(root: &Path, folder: &Path) -> Vec<Candidate> {
    let Some(manifest) = manifest(folder) else {
        return Vec::new();
    };
    let mut packages = vec![folder.to_owned()];
    packages.extend(members(folder, &manifest));
    let mut found = Vec::new();
    for package in packages {
        let is_in_workspace_of_root = folder != root && manifest_has_workspace(root);
        // Members are listed with their workspace.
        if !is_in_workspace_of_root {
            found.extend(candidate(root, folder, &package));
        }
    }
    found
}

fn manifest(folder: &Path) -> Option<Table> {
    toml::from_str(&source_file::read(&folder.join(FILE))?).ok()
}

fn manifest_has_workspace(folder: &Path) -> bool {
    manifest(folder).is_some_and(|manifest| manifest.contains_key("workspace"))
}

/// The folders of the members. An entry that ends with `/*` stands for all folders below it.
fn members(folder: &Path, manifest: &Table) -> Vec<PathBuf> {
    let members = manifest.get("workspace").and_then(|it| it.get("members"));
    let members = members.and_then(|it| it.as_array()).into_iter().flatten();
    let mut folders = Vec::new();
    for member in members.filter_map(|it| it.as_str()) {
        match member.strip_suffix("/*") {
            None => folders.push(folder.join(member)),
            Some(parent) => {
                let entries = fs::read_dir(folder.join(parent))
                    .into_iter()
                    .flatten()
                    .flatten();
                let mut below: Vec<_> = entries.map(|entry| entry.path()).collect();
                below.sort();
                folders.extend(below);
            }
        }
    }
    folders
}

/// The program of a package. Cargo is run in `folder`, which contains the target folder.
fn candidate(root: &Path, folder: &Path, package: &Path) -> Option<Candidate> {
    let manifest = manifest(package)?;
    let name = manifest.get("package")?.get("name")?.as_str()?;
    let bin = manifest.get("bin").and_then(|bins| bins.get(0));
    let path = bin
        .and_then(|bin| bin.get("path"))
        .and_then(|it| it.as_str());
    let main = source_file::read(&package.join(path.unwrap_or("src/main.rs")))?;
    let program = bin
        .and_then(|bin| bin.get("name"))
        .and_then(|it| it.as_str());
    let mut found = Candidate::new(root, folder, FILE, name);
    let source = package.strip_prefix(root).unwrap_or(package).join(FILE);
    found.source = source.to_string_lossy().into_owned();
    found.build = Some(format!("cargo build -p {name}"));
    found.run = format!("target/debug/{}", program.unwrap_or(name));
    let below = package
        .strip_prefix(folder)
        .unwrap_or(package)
        .join("src/**");
    found.watch = vec![
        below.to_string_lossy().into_owned(),
        "Cargo.lock".to_owned(),
    ];
    found.port = source_file::port(&main);
    Some(found)
}
