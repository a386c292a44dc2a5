//! A service that was found and can be added to the stack file.

use std::collections::BTreeSet;
use std::path::Path;

/// A service for the stack file.
#[derive(Clone, Debug, Default)]
pub(super) struct Candidate {
    pub(super) name: String,
    /// The file that it was found in, relative to the stack file.
    pub(super) source: String,
    /// Its folder, relative to the stack file; empty for the folder of the stack file.
    pub(super) dir: String,
    pub(super) run: String,
    /// Whether `run` needs a shell.
    pub(super) shell: bool,
    pub(super) build: Option<String>,
    pub(super) watch: Vec<String>,
    /// Whether it listens on a port.
    pub(super) port: Port,
    /// The address of an external service, which is not started.
    pub(super) external: Option<String>,
    /// Comments for the stack file, one sentence per line.
    pub(super) notes: Vec<String>,
}

/// The port of a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Port {
    /// The service has no port.
    #[default]
    None,
    /// Any port: it is passed as an argument or in the variable PORT.
    Any,
    /// The port in its code.
    Fixed(u16),
}

impl Candidate {
    /// A service in `folder`, found in the file with this name there.
    pub(super) fn new(root: &Path, folder: &Path, file: &str, name: &str) -> Self {
        let dir = relative(root, folder);
        Self {
            name: service_name(name),
            source: if dir.is_empty() {
                file.to_owned()
            } else {
                format!("{dir}/{file}")
            },
            dir,
            ..Self::default()
        }
    }
}

/// The path of a folder below another, with slashes.
fn relative(root: &Path, folder: &Path) -> String {
    let path = folder.strip_prefix(root).unwrap_or(folder);
    path.to_string_lossy().into_owned()
}

/// The name of a folder, for services without another name.
pub(super) fn folder_name(folder: &Path) -> String {
    let name = folder.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

/// Converts a name to a service name. Of a scoped package, the last part is used.
pub(super) fn service_name(text: &str) -> String {
    let last = text.rsplit('/').next().unwrap_or(text).to_lowercase();
    let dashed = last.replace(|c: char| !c.is_ascii_alphanumeric(), "-");
    let words = dashed.split('-').filter(|word| !word.is_empty());
    let name: String = words
        .collect::<Vec<_>>()
        .join("-")
        .chars()
        .take(60)
        .collect();
    match name.trim_end_matches('-') {
        "" => "service".to_owned(),
        // A name is used in host names and variables, which don't begin with a digit.
        name if name.starts_with(|c: char| c.is_ascii_digit()) => format!("s-{name}"),
        name => name.to_owned(),
    }
}

/// Names that `waypost up` itself uses.
const RESERVED: [&str; 4] = ["registry", "gateway", "dashboard", "waypost"];

/// Renames services so that no two have the same name.
pub(super) fn make_unique(candidates: &mut [Candidate]) {
    let mut taken: BTreeSet<String> = RESERVED.iter().map(|&name| name.to_owned()).collect();
    // Services that are named after their folder keep their name.
    let mut by_precedence: Vec<_> = candidates.iter_mut().collect();
    by_precedence.sort_by_key(|candidate| service_name(&candidate.dir) != candidate.name);
    for candidate in by_precedence {
        let base = candidate.name.clone();
        let folder = service_name(&candidate.dir);
        let with_folder = format!("{folder}-{base}");
        let numbered = (2..).map(|number| format!("{base}-{number}"));
        let is_below = !candidate.dir.is_empty() && folder != base;
        let options = [Some(base.clone()), is_below.then_some(with_folder)];
        let mut options = options.into_iter().flatten().chain(numbered);
        if let Some(name) = options.find(|name| !taken.contains(name)) {
            candidate.name = name;
        }
        taken.insert(candidate.name.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_becomes_a_valid_service_name() {
        for (text, expected) in [
            ("@shop/Web_App", "web-app"),
            ("github.com/acme/orders", "orders"),
            ("東京", "service"),
            ("3d", "s-3d"),
            ("--x--", "x"),
        ] {
            assert_eq!(service_name(text), expected);
        }
    }

    #[test]
    fn services_with_the_same_name_are_renamed() {
        let named = |name: &str, dir: &str| Candidate {
            name: name.to_owned(),
            dir: dir.to_owned(),
            ..Candidate::default()
        };
        let mut all = [
            named("web", "a"),
            named("web", "b"),
            named("gateway", ""),
            named("web", "b"),
        ];
        make_unique(&mut all);
        let names = all.map(|candidate| candidate.name);
        assert_eq!(names, ["web", "b-web", "gateway-2", "web-2"]);
        let mut all = [named("web", "jobs"), named("web", "web")];
        make_unique(&mut all);
        assert_eq!(all.map(|candidate| candidate.name), ["jobs-web", "web"]);
    }
}
