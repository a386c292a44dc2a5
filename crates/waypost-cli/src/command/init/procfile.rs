//! Procfile

use std::path::Path;

use super::candidate::{Candidate, Port};
use super::source_file;

const FILE: &str = "Procfile";

/// The processes of a Procfile: each line is `name: command`.
pub(super) fn candidates(root: &Path, folder: &Path) -> Vec<Candidate> {
    let files = ["Procfile.dev", FILE];
    let texts = files.map(|file| Some((file, source_file::read(&folder.join(file))?)));
    let Some((file, text)) = texts.into_iter().flatten().next() else {
        return Vec::new();
    };
    let lines = text.lines().map(str::trim);
    let lines = lines.filter(|line| !line.starts_with('#'));
    let processes = lines.filter_map(|line| line.split_once(':'));
    let found = processes.filter_map(|(name, command)| {
        let command = command.trim();
        // Heroku runs these once for each release.
        if command.is_empty() || name.trim() == "release" {
            return None;
        }
        let mut found = Candidate::new(root, folder, file, name);
        let has_port = ["$PORT", "${PORT}", "PORT:-"]
            .iter()
            .any(|it| command.contains(it));
        found.run = command
            .replace("${PORT}", "{port}")
            .replace("$PORT", "{port}");
        // Braces that remain are the shell's, not the stack file's.
        let has_braces = found.run.replace("{port}", "").contains(['{', '}']);
        if has_braces {
            found.run = found
                .run
                .replace("{port}", "$PORT")
                .replace('{', "{{")
                .replace('}', "}}");
        }
        found.shell = found
            .run
            .contains(['|', '&', ';', '$', '>', '<', '*', '`', '~']);
        // By convention, the process `web` gets requests.
        if has_port || name.trim() == "web" {
            found.port = Port::Any;
        }
        Some(found)
    });
    found.collect()
}
