//! package.json

use std::path::Path;

use serde_json::Value;

use super::candidate::{Candidate, Port, folder_name};
use super::source_file;

const FILE: &str = "package.json";

/// The program of a Node package: its script `dev`, `start` or `serve`, or else its main file.
pub(super) fn candidates(root: &Path, folder: &Path) -> Vec<Candidate> {
    let package = source_file::read(&folder.join(FILE));
    let package: Option<Value> = package.and_then(|text| serde_json::from_str(&text).ok());
    package
        .and_then(|package| candidate(root, folder, &package))
        .into_iter()
        .collect()
}

fn candidate(root: &Path, folder: &Path, package: &Value) -> Option<Candidate> {
    let own_name = folder_name(folder);
    let name = package["name"].as_str().unwrap_or(&own_name);
    let mut found = Candidate::new(root, folder, FILE, name);
    let main = package["main"].as_str().unwrap_or("index.js");
    let main_text = source_file::read(&folder.join(main)).unwrap_or_default();
    let script = ["dev", "start", "serve"]
        .into_iter()
        .find(|script| package["scripts"][script].is_string());
    let Some(script) = script else {
        if main_text.is_empty() {
            return None;
        }
        found.run = format!("node {main}");
        found.port = source_file::port(&main_text);
        return Some(found);
    };
    let manager = manager(folder);
    // npm needs the dashes to pass arguments on to the script.
    let dashes = if manager == "npm" { " --" } else { "" };
    let command = package["scripts"][script].as_str().unwrap_or_default();
    let program = command.split_whitespace().find(|word| !word.contains('='));
    let (arguments, port) = match program.unwrap_or_default() {
        "vite" => (format!("{dashes} --port {{port}} --strictPort"), Port::Any),
        "next" => (format!("{dashes} -p {{port}}"), Port::Any),
        "astro" | "ng" | "nuxt" | "nuxi" => (format!("{dashes} --port {{port}}"), Port::Any),
        _ => (String::new(), port_of_script(folder, command, &main_text)),
    };
    found.run = format!("{manager} run {script}{arguments}");
    found.port = port;
    Some(found)
}

/// The port of the file that a script runs, such as `node --watch src/main.js`.
fn port_of_script(folder: &Path, command: &str, main_text: &str) -> Port {
    let is_source = |word: &&str| {
        let extension = Path::new(word).extension().and_then(|it| it.to_str());
        matches!(extension, Some("js" | "mjs" | "cjs" | "ts" | "mts"))
    };
    let file = command.split_whitespace().find(is_source);
    let text = file.and_then(|file| source_file::read(&folder.join(file)));
    source_file::port(text.as_deref().unwrap_or(main_text))
}

fn manager(folder: &Path) -> &'static str {
    let has = |name: &str| folder.join(name).exists();
    if has("pnpm-lock.yaml") {
        "pnpm"
    } else if has("yarn.lock") {
        "yarn"
    } else if has("bun.lockb") || has("bun.lock") {
        "bun"
    } else {
        "npm"
    }
}
