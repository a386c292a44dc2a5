//! The snapshot on disk: what was known last, for a start while the registry is down.
//!
//! A file is one line of header and one of JSON:
//!
//! ```text
//! waypost-snapshot 1 crc32=9ae0daaf bytes=2817
//! {"provider":"consul at http://localhost:8500","services":{"auth":{"confirmed_unix_ms":…,"instances":[…]}}}
//! ```
//!
//! It is written beside its place and moved there when it is whole and on the disk, so that a
//! reader finds the old one or the new one. One that is damaged, of another version or of another
//! provider is left alone with a warning: no start may fail by it.

mod record;

use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{fs, io};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use waypost_core::{Instance, ServiceName};

use self::record::Record;
use crate::snapshot::Snapshot;

const MAGIC: &str = "waypost-snapshot";
const VERSION: &str = "1";

/// Changes that follow each other within this time are written at once.
const GATHER: Duration = Duration::from_secs(1);
/// The file says when each answer was last confirmed, so it is written now and then without news.
const REFRESH: Duration = Duration::from_secs(300);
/// What nobody has asked for since is dropped from the file after this time.
const KEEP: Duration = Duration::from_secs(7 * 24 * 3600);
/// No sensible file is larger.
const MAX_BYTES: u64 = 256 << 20;

/// The file, and what it said at the start.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    provider: Arc<str>,
    remembered: Mutex<HashMap<ServiceName, Remembered>>,
    changed: Notify,
}

/// What was known of a service, and when that was.
#[derive(Clone, Debug)]
pub(super) struct Remembered {
    pub(super) instances: Vec<Arc<Instance>>,
    confirmed: SystemTime,
}

impl Remembered {
    /// When that was, on the clock that ages are measured by.
    pub(super) fn confirmed_at(&self) -> Instant {
        let age = self.confirmed.elapsed().unwrap_or_default();
        let now = Instant::now();
        now.checked_sub(age).unwrap_or(now)
    }
}

#[derive(Serialize, Deserialize)]
struct Content {
    provider: String,
    services: BTreeMap<ServiceName, Entry>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    confirmed_unix_ms: u64,
    instances: Vec<Record>,
}

impl Store {
    /// Reads the file, if there is a usable one.
    pub(super) fn open(path: &Path, provider: Arc<str>) -> Self {
        let remembered = match read(path, &provider) {
            Ok(remembered) => remembered,
            Err(Unusable::Missing) => HashMap::new(),
            Err(Unusable::Because(reason)) => {
                tracing::warn!(
                    file = %path.display(), %reason,
                    "discovery snapshot ignored; it will be written anew"
                );
                HashMap::new()
            }
        };
        Self {
            path: path.to_owned(),
            provider,
            remembered: Mutex::new(remembered),
            changed: Notify::new(),
        }
    }

    /// What was known of a service when this program ran last.
    pub(super) fn recall(&self, service: &ServiceName) -> Option<Remembered> {
        self.remembered().get(service).cloned()
    }

    /// Something is known anew.
    pub(super) fn note_change(&self) {
        self.changed.notify_one();
    }

    /// Writes what `known` gives whenever it has changed, until it gives nothing.
    pub(super) async fn keep(self: Arc<Self>, known: impl Fn() -> Option<Vec<Arc<Snapshot>>>) {
        let mut failing = false;
        loop {
            // Passing without a change is a refresh.
            let _ = timeout(REFRESH, self.changed.notified()).await;
            sleep(GATHER).await;
            let Some(snapshots) = known() else { return };
            let store = Arc::clone(&self);
            let written = tokio::task::spawn_blocking(move || store.write(&snapshots)).await;
            let outcome = written.unwrap_or_else(|panic| Err(io::Error::other(panic)));
            match &outcome {
                Err(error) if !failing => tracing::warn!(
                    file = %self.path.display(), %error, "discovery snapshot can't be written"
                ),
                Ok(()) if failing => {
                    tracing::info!(file = %self.path.display(), "discovery snapshot written again");
                }
                _ => {}
            }
            failing = outcome.is_err();
        }
    }

    fn write(&self, snapshots: &[Arc<Snapshot>]) -> io::Result<()> {
        let mut remembered = self.remembered();
        for snapshot in snapshots {
            let Some(age) = snapshot.freshness().age().filter(|_| snapshot.is_known()) else {
                continue;
            };
            let now = SystemTime::now();
            let entry = Remembered {
                instances: snapshot.instances().cloned().collect(),
                confirmed: now.checked_sub(age).unwrap_or(now),
            };
            remembered.insert(snapshot.service().clone(), entry);
        }
        remembered.retain(|_, entry| entry.confirmed.elapsed().unwrap_or_default() < KEEP);
        let content = Content {
            provider: self.provider.to_string(),
            services: remembered
                .iter()
                .map(|(service, entry)| (service.clone(), Entry::from(entry)))
                .collect(),
        };
        drop(remembered);
        let body = serde_json::to_vec(&content)?;
        let header = format!(
            "{MAGIC} {VERSION} crc32={:08x} bytes={}\n",
            crc32fast::hash(&body),
            body.len()
        );
        replace(&self.path, &[header.as_bytes(), &body])
    }

    /// Whole at any moment, as entries come one by one.
    fn remembered(&self) -> MutexGuard<'_, HashMap<ServiceName, Remembered>> {
        (self.remembered.lock()).unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<&Remembered> for Entry {
    fn from(remembered: &Remembered) -> Self {
        let since = remembered.confirmed.duration_since(UNIX_EPOCH);
        Self {
            confirmed_unix_ms: since.map_or(0, |since| since.as_millis() as u64),
            instances: (remembered.instances.iter())
                .map(|instance| Record::of(instance))
                .collect(),
        }
    }
}

enum Unusable {
    Missing,
    Because(String),
}

fn read(path: &Path, provider: &str) -> Result<HashMap<ServiceName, Remembered>, Unusable> {
    let because = |reason: String| Unusable::Because(reason);
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(Unusable::Missing),
        Ok(data) if data.len() > MAX_BYTES => {
            return Err(because(format!("it is larger than {MAX_BYTES} bytes")));
        }
        _ => {}
    }
    let bytes = fs::read(path).map_err(|error| because(error.to_string()))?;
    let body = checked_body(&bytes).map_err(because)?;
    let content: Content =
        serde_json::from_slice(body).map_err(|error| because(error.to_string()))?;
    if content.provider != provider {
        let theirs = content.provider;
        return Err(because(format!("it is of {theirs:?}, not of {provider:?}")));
    }
    let mut remembered = HashMap::new();
    for (service, entry) in content.services {
        let instances: Result<Vec<_>, _> = (entry.instances.into_iter())
            .map(|record| record.instance(&service).map(Arc::new))
            .collect();
        let instances = instances.map_err(|fault| because(fault.to_string()))?;
        let confirmed = UNIX_EPOCH + Duration::from_millis(entry.confirmed_unix_ms);
        remembered.insert(
            service,
            Remembered {
                instances,
                confirmed,
            },
        );
    }
    Ok(remembered)
}

/// The body, if the header is ours and agrees with it.
fn checked_body(bytes: &[u8]) -> Result<&[u8], String> {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (header, body) = bytes.split_at(end.ok_or("it has no header")?);
    let body = &body[1..];
    let header = std::str::from_utf8(header).map_err(|_| "it has no header")?;
    let mut words = header.split(' ');
    if words.next() != Some(MAGIC) {
        return Err(format!("it does not begin with {MAGIC:?}"));
    }
    match words.next() {
        Some(VERSION) => {}
        other => {
            let version = other.unwrap_or_default();
            return Err(format!(
                "it is of version {version:?}, this program reads version {VERSION}"
            ));
        }
    }
    let value = |name: &str, word: Option<&str>| {
        word.and_then(|word| word.strip_prefix(name)?.strip_prefix('='))
            .map(str::to_owned)
    };
    let sum = value("crc32", words.next());
    let length = value("bytes", words.next());
    if length.as_deref() != Some(body.len().to_string().as_str()) {
        let length = length.unwrap_or_default();
        return Err(format!("it has {} bytes instead of {length}", body.len()));
    }
    if sum != Some(format!("{:08x}", crc32fast::hash(body))) {
        return Err("its checksum is wrong".into());
    }
    Ok(body)
}

/// Puts a whole file in the place of another.
fn replace(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    // Two processes that share a path by mistake must not share the unfinished file too.
    name.push(format!(".{}.part", std::process::id()));
    let part = folder.join(name);
    let whole = || {
        let mut file = fs::File::create(&part)?;
        for bytes in parts {
            file.write_all(bytes)?;
        }
        file.sync_all()?;
        fs::rename(&part, path)?;
        fs::File::open(folder)?.sync_all()
    };
    whole().inspect_err(|_| {
        // What is left of it is of no use to anybody.
        let _ = fs::remove_file(&part);
    })
}

#[cfg(test)]
mod tests {
    use waypost_core::Health;
    use waypost_core::provider::StaticProvider;

    use super::*;

    fn snapshot() -> Arc<Snapshot> {
        let service = ServiceName::new("auth").unwrap();
        let host = "10.0.0.1".parse().unwrap();
        let instance = Instance::builder(service.clone(), host, 80)
            .id("auth-1")
            .scheme("https")
            .path_prefix("/v2")
            .version("1.2.3")
            .tag("blue")
            .meta("team", "search")
            .weight(crate::Weight::new(7))
            .zone("eu-1")
            .health(Health::Warning)
            .named_port("admin", 9000)
            .build()
            .unwrap();
        let pending = Snapshot::pending(service, "test".into());
        Arc::new(pending.answered(Some(vec![Arc::new(instance)])))
    }

    fn reason(path: &Path) -> String {
        match read(path, "test") {
            Err(Unusable::Because(reason)) => reason,
            Err(Unusable::Missing) => "missing".into(),
            Ok(_) => "usable".into(),
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below/snapshot");
        let store = Store::open(&path, "test".into());
        store.write(&[snapshot()]).unwrap();
        let again = Store::open(&path, "test".into());
        let recalled = again.recall(snapshot().service()).unwrap();
        assert_eq!(
            &recalled.instances[0],
            snapshot().instances().next().unwrap()
        );
        assert!(recalled.confirmed_at().elapsed() < Duration::from_secs(60));
        let files: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(files.len(), 1, "no unfinished file is left: {files:?}");
        // The kinds of file are not mixed up.
        assert!(StaticProvider::open(&path).is_err());
    }

    #[test]
    fn a_file_that_is_not_as_it_was_written_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot");
        assert_eq!(reason(&path), "missing");
        Store::open(&path, "test".into())
            .write(&[snapshot()])
            .unwrap();
        assert_eq!(reason(&path), "usable");
        let whole = fs::read(&path).unwrap();
        // Any byte flipped, and cut anywhere.
        for position in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[position] ^= 0x20;
            fs::write(&path, &damaged).unwrap();
            assert_ne!(reason(&path), "usable", "byte {position}");
            fs::write(&path, &whole[..position]).unwrap();
            assert_ne!(reason(&path), "usable", "cut at {position}");
        }
        let newer = String::from_utf8(whole).unwrap().replacen(" 1 ", " 2 ", 1);
        fs::write(&path, newer).unwrap();
        assert!(
            reason(&path).contains("reads version 1"),
            "{}",
            reason(&path)
        );
    }

    #[test]
    fn what_another_provider_said_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot");
        Store::open(&path, "staging".into())
            .write(&[snapshot()])
            .unwrap();
        assert!(reason(&path).contains("staging"), "{}", reason(&path));
    }
}
