//! `waypost init`: writes a stack file for the services that are found in a folder.

mod candidate;
mod cargo;
mod compose;
mod go;
mod node;
mod procfile;
mod python;
mod source_file;
mod stack_text;

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use waypost_runner::stack_file::{FILE_NAME, StackFile};

use self::candidate::Candidate;
use self::stack_text::stack_text;
use crate::error::{CommandError, CommandResult};
use crate::terminal::{print_line, print_verbatim};

/// Write a waypost.toml for the services found in this folder and one level below
///
/// Looks for package.json, pyproject.toml, requirements.txt, go.mod, Cargo.toml, Procfile and
/// compose.yaml. The file has a comment on each choice; an existing one is never overwritten.
#[derive(Args)]
pub(crate) struct Init {
    /// Print the file instead of writing it
    #[arg(long)]
    print: bool,
}

/// Folders that contain dependencies or build results.
const SKIPPED: [&str; 9] = [
    "node_modules",
    "target",
    "venv",
    "dist",
    "build",
    "vendor",
    "__pycache__",
    "bin",
    "obj",
];

impl Init {
    pub(super) fn run(&self) -> CommandResult {
        let root = std::env::current_dir()?;
        let path = Path::new(FILE_NAME);
        if !self.print && path.exists() {
            return Err(already_there());
        }
        let found = find(&root)?;
        let text = stack_text(&root, &found);
        // The result must be valid, whatever the contents of the files from which it was created.
        StackFile::parse(path, &text).map_err(CommandError::stack_file)?;
        if self.print {
            print_verbatim(&text)?;
            return Ok(ExitCode::SUCCESS);
        }
        let file = OpenOptions::new().write(true).create_new(true).open(path);
        let mut file = file.map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => already_there(),
            _ => CommandError::Other(format!("can't write {FILE_NAME}: {error}")),
        })?;
        file.write_all(text.as_bytes())?;
        for candidate in &found {
            let (name, source) = (&candidate.name, &candidate.source);
            print_line(format_args!("{name}  from {source}"))?;
        }
        if found.is_empty() {
            print_line(format_args!(
                "wrote {FILE_NAME} with an example: nothing that it could start was found here or \
                 one level below; edit it, then: waypost up"
            ))?;
        } else {
            print_line(format_args!("wrote {FILE_NAME}; read it, then: waypost up"))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn already_there() -> CommandError {
    CommandError::Invalid(format!(
        "{FILE_NAME} exists, and is not overwritten; `waypost init --print` prints the new one"
    ))
}

/// The services in a folder and its subfolders.
fn find(root: &Path) -> Result<Vec<Candidate>, CommandError> {
    let mut found: Vec<Candidate> = Vec::new();
    for folder in folders(root)? {
        for candidate in candidates(root, &folder) {
            // A Procfile and a package.json of one folder often describe the same program.
            let is_known = found
                .iter()
                .any(|it| it.name == candidate.name && it.dir == candidate.dir);
            if !is_known {
                found.push(candidate);
            }
        }
    }
    candidate::make_unique(&mut found);
    Ok(found)
}

/// The folder and its subfolders, sorted by name.
fn folders(root: &Path) -> Result<Vec<PathBuf>, CommandError> {
    let unreadable = |error| CommandError::Other(format!("can't read this folder: {error}"));
    let mut folders = Vec::new();
    for entry in fs::read_dir(root).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && !name.starts_with('.') && !SKIPPED.contains(&&*name) {
            folders.push(path);
        }
    }
    folders.sort();
    folders.insert(0, root.to_owned());
    Ok(folders)
}

/// The services in one folder. A Procfile takes precedence, because it was written for this purpose.
fn candidates(root: &Path, folder: &Path) -> Vec<Candidate> {
    let named = procfile::candidates(root, folder);
    let mut all = if named.is_empty() {
        let by_language = [
            node::candidates(root, folder),
            python::candidates(root, folder),
            go::candidates(root, folder),
            cargo::candidates(root, folder),
        ];
        by_language.concat()
    } else {
        named
    };
    all.extend(compose::candidates(root, folder));
    all
}
