//! go.mod

use std::fs;
use std::path::Path;

use super::candidate::{Candidate, folder_name};
use super::source_file;

const FILE: &str = "go.mod";

/// The programs of a Go module: its root, and each folder in `cmd`.
pub(super) fn candidates(root: &Path, folder: &Path) -> Vec<Candidate> {
    let Some(text) = source_file::read(&folder.join(FILE)) else {
        return Vec::new();
    };
    let module = text.lines().find_map(|line| line.strip_prefix("module "));
    let name = module.map_or_else(|| folder_name(folder), |it| it.trim().to_owned());
    let mut programs = vec![(name, ".".to_owned(), folder.to_owned())];
    let commands = fs::read_dir(folder.join("cmd"))
        .into_iter()
        .flatten()
        .flatten();
    let mut commands: Vec<_> = commands.map(|entry| entry.path()).collect();
    commands.sort();
    programs.extend(commands.into_iter().map(|path| {
        let name = folder_name(&path);
        (name.clone(), format!("./cmd/{name}"), path)
    }));
    let found = programs.into_iter().filter_map(|(name, package, path)| {
        let main = source_file::read(&path.join("main.go"))?;
        let mut found = Candidate::new(root, folder, FILE, &name);
        // Next to its sources, so that the path doesn't depend on the current folder.
        found.build = Some(format!("go build -o .waypost/bin/{} {package}", found.name));
        found.run = format!(".waypost/bin/{}", found.name);
        found.watch = vec!["**/*.go".to_owned(), "go.mod".to_owned()];
        found.port = source_file::port(&main);
        Some(found)
    });
    found.collect()
}
