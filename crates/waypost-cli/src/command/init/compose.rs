//! compose.yaml

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use waypost::parse_yaml;

use super::candidate::Candidate;
use super::source_file;
use crate::terminal::print_error;

/// The parts of a compose file that are used.
#[derive(Deserialize)]
struct ComposeFile {
    #[serde(default)]
    services: BTreeMap<String, Service>,
}

#[derive(Deserialize)]
struct Service {
    image: Option<String>,
    #[serde(default)]
    ports: Vec<Published>,
}

/// A published port, such as `"127.0.0.1:5432:5432/tcp"`.
#[derive(Deserialize)]
#[serde(untagged)]
enum Published {
    Text(String),
    Long {
        published: Option<Number>,
    },
    /// Only the port in the container: docker chooses the port on this machine.
    Other(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Number {
    Number(u16),
    Text(String),
}

/// The services of a compose file that use an image and publish a port, such as databases. They are still
/// started by `docker compose`, so they are external. Services that a compose file builds are found by
/// the files of their language.
pub(super) fn candidates(root: &Path, folder: &Path) -> Vec<Candidate> {
    let files = [
        "compose.yaml",
        "compose.yml",
        "docker-compose.yaml",
        "docker-compose.yml",
    ];
    let texts = files.map(|file| Some((file, source_file::read(&folder.join(file))?)));
    let Some((file, text)) = texts.into_iter().flatten().next() else {
        return Vec::new();
    };
    let path = folder.join(file);
    let path = path.strip_prefix(root).unwrap_or(&path);
    let compose = match parse_yaml::<ComposeFile>(path.display(), &text) {
        Ok(compose) => compose,
        Err(error) => {
            print_error(format_args!("skipped {error}"));
            return Vec::new();
        }
    };
    let found = compose.services.into_iter().filter_map(|(name, service)| {
        let image = service.image?;
        let port = service.ports.iter().find_map(Published::host_port)?;
        let mut found = Candidate::new(root, folder, file, &name);
        let file = &found.source;
        found.notes = vec![
            format!("{image}. It is not started, but checked, registered and shown."),
            format!("Start it with: docker compose -f {file} up -d {name}"),
        ];
        found.external = Some(format!("localhost:{port}"));
        Some(found)
    });
    found.collect()
}

impl Published {
    /// The port on this machine, if it is a fixed one.
    fn host_port(&self) -> Option<u16> {
        let text = match self {
            Self::Other(_) => return None,
            Self::Long { published } => match published.as_ref()? {
                Number::Number(port) => return Some(*port),
                Number::Text(text) => return text.parse().ok(),
            },
            Self::Text(text) => text,
        };
        let mut parts = text.rsplit(':');
        parts.next()?;
        parts.next()?.parse().ok().filter(|port| *port != 0)
    }
}
