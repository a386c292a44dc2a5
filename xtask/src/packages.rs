//! The packages that are published on crates.io.

use std::fs;
use std::path::PathBuf;

use crate::shell::{self, Result};

/// The directories of published packages. Those in `testing/` and `xtask/` are not published.
const DIRECTORIES: [&str; 2] = ["crates", "samples"];

/// A package of this workspace.
#[derive(Debug, PartialEq)]
pub(crate) struct Package {
    pub(crate) name: String,
    /// The features in `Cargo.toml`, without `default`.
    pub(crate) features: Vec<String>,
    pub(crate) directory: PathBuf,
}

/// The published packages, in the order of their names.
pub(crate) fn published() -> Result<Vec<Package>> {
    let mut packages = Vec::new();
    for parent in DIRECTORIES {
        let parent = shell::workspace().join(parent);
        let entries =
            fs::read_dir(&parent).map_err(|error| format!("{}: {error}", parent.display()))?;
        for directory in entries.filter_map(|entry| entry.ok().map(|entry| entry.path())) {
            let manifest = directory.join("Cargo.toml");
            if let Ok(text) = fs::read_to_string(&manifest) {
                let package = parse(&text, directory);
                packages.push(package.ok_or(format!("{}: no name", manifest.display()))?);
            }
        }
    }
    packages.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(packages)
}

/// Reads a manifest line by line: a parser of TOML would be a dependency, and all manifests here are
/// formatted alike.
fn parse(manifest: &str, directory: PathBuf) -> Option<Package> {
    let mut table = "";
    let mut name = None;
    let mut features = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            table = line;
        } else if let Some((key, value)) = line.split_once(" = ") {
            match table {
                "[package]" if key == "name" => name = Some(value.trim_matches('"').to_owned()),
                "[features]" if key != "default" && !key.starts_with('#') => {
                    features.push(key.to_owned());
                }
                _ => {}
            }
        }
    }
    Some(Package {
        name: name?,
        features,
        directory,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_name_and_features_of_a_manifest() {
        let manifest = "[package]\nname = \"waypost\"\n\n[features]\ndefault = [\"consul\"]\n\
                        # a = comment\nconsul = [\"dep:waypost-consul\"]\nhttp-check = []\n\n\
                        [dependencies]\nserde = \"1\"\n";
        let package = parse(manifest, PathBuf::from("crates/waypost")).unwrap();
        assert_eq!(package.name, "waypost");
        assert_eq!(package.features, ["consul", "http-check"]);
        assert_eq!(parse("[dependencies]\n", PathBuf::new()), None);
    }

    #[test]
    fn finds_the_published_packages() {
        let names: Vec<_> = published().unwrap().into_iter().map(|p| p.name).collect();
        assert!(names.contains(&"waypost".to_owned()));
        assert!(!names.contains(&"waypost-testkit".to_owned()));
    }
}
