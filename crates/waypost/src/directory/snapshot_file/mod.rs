//! The snapshot file: the last known answers on disk, for programs that start while the registry is down.
//!
//! The file has a header line and a line of JSON:
//!
//! ```text
//! waypost-snapshot 1 crc32=9ae0daaf bytes=2817
//! {"provider":"consul at http://localhost:8500","services":{"auth":{"confirmed_unix_ms":…,"instances":[…]}},
//!  "catalog":{"confirmed_unix_ms":…,"names":["auth",…]}}
//! ```
//!
//! `services` has the services that this program has looked up. `catalog` has the names of all services,
//! if the program has listed them.
//!
//! It is written to a temporary file, synced and renamed, so a reader finds either the old file or the
//! new one. A file that is damaged, or of another version or provider, is ignored with a warning; it
//! never prevents a start.

mod record;

use std::collections::{BTreeMap, BTreeSet, HashMap};
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
use crate::snapshot::{Catalog, Freshness, Snapshot};

const MAGIC: &str = "waypost-snapshot";
const VERSION: &str = "1";

/// Changes within this time are written together.
const DEBOUNCE: Duration = Duration::from_secs(1);
/// The file holds the time when each answer was last confirmed, so it is also written without changes.
const REFRESH: Duration = Duration::from_secs(300);
/// Services that were not confirmed for this long are removed from the file.
const RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);
/// A larger file is not read.
const MAX_BYTES: u64 = 256 << 20;

/// The file, and its content at the start.
#[derive(Debug)]
pub(super) struct SnapshotFile {
    path: PathBuf,
    provider: Arc<str>,
    remembered: Mutex<Answers>,
    changed: Notify,
}

/// The answers in the file.
#[derive(Debug, Default)]
struct Answers {
    services: HashMap<ServiceName, Remembered<Vec<Arc<Instance>>>>,
    catalog: Option<Remembered<BTreeSet<ServiceName>>>,
}

/// An answer, and when it was last confirmed.
#[derive(Clone, Debug)]
pub(super) struct Remembered<T> {
    pub(super) answer: T,
    confirmed: SystemTime,
}

impl<T> Remembered<T> {
    /// The answer of a snapshot with this freshness. `None` before the first answer.
    fn new(answer: impl FnOnce() -> T, freshness: &Freshness) -> Option<Self> {
        let age = freshness.age()?;
        let now = SystemTime::now();
        Some(Self {
            answer: answer(),
            confirmed: now.checked_sub(age).unwrap_or(now),
        })
    }

    /// The answer that was confirmed at this time, in milliseconds since 1970.
    fn at_unix_ms(answer: T, confirmed_unix_ms: u64) -> Self {
        Self {
            answer,
            confirmed: UNIX_EPOCH + Duration::from_millis(confirmed_unix_ms),
        }
    }

    /// When it was last confirmed, on the monotonic clock.
    pub(super) fn confirmed_at(&self) -> Instant {
        let now = Instant::now();
        now.checked_sub(self.age()).unwrap_or(now)
    }

    fn confirmed_unix_ms(&self) -> u64 {
        let since = self.confirmed.duration_since(UNIX_EPOCH);
        since.map_or(0, |since| since.as_millis() as u64)
    }

    fn age(&self) -> Duration {
        self.confirmed.elapsed().unwrap_or_default()
    }
}

/// The known services at one moment.
pub(super) struct Known {
    /// The services that are watched.
    pub(super) services: Vec<Arc<Snapshot>>,
    /// The list of all services, if it is watched.
    pub(super) catalog: Option<Arc<Catalog>>,
}

#[derive(Serialize, Deserialize)]
struct Content {
    provider: String,
    services: BTreeMap<ServiceName, ServiceRecord>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    catalog: Option<CatalogRecord>,
}

#[derive(Serialize, Deserialize)]
struct ServiceRecord {
    confirmed_unix_ms: u64,
    instances: Vec<Record>,
}

#[derive(Serialize, Deserialize)]
struct CatalogRecord {
    confirmed_unix_ms: u64,
    names: BTreeSet<ServiceName>,
}

impl SnapshotFile {
    /// Reads the file, if there is a usable one.
    pub(super) fn open(path: &Path, provider: Arc<str>) -> Self {
        let remembered = match read(path, &provider) {
            Ok(remembered) => remembered,
            Err(Unusable::Missing) => Answers::default(),
            Err(Unusable::Because(reason)) => {
                tracing::warn!(
                    file = %path.display(), %reason,
                    "snapshot file ignored, it will be replaced"
                );
                Answers::default()
            }
        };
        Self {
            path: path.to_owned(),
            provider,
            remembered: Mutex::new(remembered),
            changed: Notify::new(),
        }
    }

    /// The answer about a service that was in the file when the program started.
    pub(super) fn recall(&self, service: &ServiceName) -> Option<Remembered<Vec<Arc<Instance>>>> {
        self.remembered().services.get(service).cloned()
    }

    /// The names of all services that were in the file when the program started.
    pub(super) fn recall_names(&self) -> Option<Remembered<BTreeSet<ServiceName>>> {
        self.remembered().catalog.clone()
    }

    /// Causes the file to be written soon.
    pub(super) fn mark_changed(&self) {
        self.changed.notify_one();
    }

    /// Writes what `known` returns whenever it has changed, until it returns `None`.
    pub(super) async fn write_changes(self: Arc<Self>, known: impl Fn() -> Option<Known>) {
        let mut failing = false;
        loop {
            // A timeout is a refresh without a change.
            let _ = timeout(REFRESH, self.changed.notified()).await;
            sleep(DEBOUNCE).await;
            let Some(known) = known() else { return };
            let file = Arc::clone(&self);
            let written = tokio::task::spawn_blocking(move || file.write(&known)).await;
            let outcome = written.unwrap_or_else(|panic| Err(io::Error::other(panic)));
            match &outcome {
                Err(error) if !failing => tracing::warn!(
                    file = %self.path.display(), %error, "snapshot file can't be written"
                ),
                Ok(()) if failing => {
                    tracing::info!(file = %self.path.display(), "snapshot file written again");
                }
                _ => {}
            }
            failing = outcome.is_err();
        }
    }

    fn write(&self, known: &Known) -> io::Result<()> {
        let mut remembered = self.remembered();
        for snapshot in known.services.iter().filter(|known| known.is_known()) {
            let instances = || snapshot.instances().cloned().collect();
            if let Some(entry) = Remembered::new(instances, snapshot.freshness()) {
                let service = snapshot.service().clone();
                remembered.services.insert(service, entry);
            }
        }
        if let Some(catalog) = &known.catalog {
            let names = || catalog.names().clone();
            let entry = Remembered::new(names, catalog.freshness());
            remembered.catalog = entry.or_else(|| remembered.catalog.take());
        }
        (remembered.services).retain(|_, entry| entry.age() < RETENTION);
        remembered.catalog.take_if(|entry| entry.age() >= RETENTION);
        let content = Content {
            provider: self.provider.to_string(),
            services: (remembered.services.iter())
                .map(|(service, entry)| (service.clone(), ServiceRecord::from(entry)))
                .collect(),
            catalog: remembered.catalog.as_ref().map(CatalogRecord::from),
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

    /// Each entry is valid on its own, so a poisoned lock can still be used.
    fn remembered(&self) -> MutexGuard<'_, Answers> {
        (self.remembered.lock()).unwrap_or_else(PoisonError::into_inner)
    }
}

impl From<&Remembered<Vec<Arc<Instance>>>> for ServiceRecord {
    fn from(remembered: &Remembered<Vec<Arc<Instance>>>) -> Self {
        Self {
            confirmed_unix_ms: remembered.confirmed_unix_ms(),
            instances: (remembered.answer.iter())
                .map(|instance| Record::of(instance))
                .collect(),
        }
    }
}

impl From<&Remembered<BTreeSet<ServiceName>>> for CatalogRecord {
    fn from(remembered: &Remembered<BTreeSet<ServiceName>>) -> Self {
        Self {
            confirmed_unix_ms: remembered.confirmed_unix_ms(),
            names: remembered.answer.clone(),
        }
    }
}

enum Unusable {
    Missing,
    Because(String),
}

fn read(path: &Path, provider: &str) -> Result<Answers, Unusable> {
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
        return Err(because(format!(
            "its provider is {theirs:?}, not {provider:?}"
        )));
    }
    let mut services = HashMap::new();
    for (service, entry) in content.services {
        let instances: Result<Vec<_>, _> = (entry.instances.into_iter())
            .map(|record| record.instance(&service).map(Arc::new))
            .collect();
        let instances = instances.map_err(|fault| because(fault.to_string()))?;
        let remembered = Remembered::at_unix_ms(instances, entry.confirmed_unix_ms);
        services.insert(service, remembered);
    }
    let catalog = content.catalog;
    Ok(Answers {
        services,
        catalog: catalog.map(|all| Remembered::at_unix_ms(all.names, all.confirmed_unix_ms)),
    })
}

/// The body, if the header is valid and matches it.
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
                "it has version {version:?}, this program reads version {VERSION}"
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
        return Err(format!(
            "it has {} bytes, its header says {length}",
            body.len()
        ));
    }
    if sum != Some(format!("{:08x}", crc32fast::hash(body))) {
        return Err("its checksum is wrong".into());
    }
    Ok(body)
}

/// Replaces a file atomically.
fn replace(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    // Two processes that share a path by mistake must not share the temporary file too.
    name.push(format!(".{}.part", std::process::id()));
    let part = folder.join(name);
    let whole = || {
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true);
        // Metadata of instances may be confidential.
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&part)?;
        for bytes in parts {
            file.write_all(bytes)?;
        }
        file.sync_all()?;
        fs::rename(&part, path)?;
        fs::File::open(folder)?.sync_all()
    };
    whole().inspect_err(|_| {
        // The incomplete temporary file is useless.
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
            .weight(waypost_core::Weight::new(7))
            .zone("eu-1")
            .health(Health::Warning)
            .named_port("admin", 9000)
            .build()
            .unwrap();
        let pending = Snapshot::pending(service, "test".into());
        Arc::new(pending.answered(Some(vec![Arc::new(instance)])))
    }

    fn known(services: Vec<Arc<Snapshot>>) -> Known {
        Known {
            services,
            catalog: None,
        }
    }

    #[cfg(unix)]
    #[test]
    fn only_the_user_can_read_the_file() {
        use std::os::unix::fs::PermissionsExt;

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot");
        fs::write(&path, "").unwrap();
        replace(&path, &[b"a"]).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    fn reason(path: &Path) -> String {
        match read(path, "test") {
            Err(Unusable::Because(reason)) => reason,
            Err(Unusable::Missing) => "missing".into(),
            Ok(_) => "usable".into(),
        }
    }

    #[test]
    fn a_written_file_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("below/snapshot");
        let file = SnapshotFile::open(&path, "test".into());
        let names = BTreeSet::from(["auth".parse().unwrap(), "never-used".parse().unwrap()]);
        let catalog = Catalog::pending("test".into()).answered(names.clone());
        let all = Known {
            services: vec![snapshot()],
            catalog: Some(Arc::new(catalog)),
        };
        file.write(&all).unwrap();
        let again = SnapshotFile::open(&path, "test".into());
        let recalled = again.recall(snapshot().service()).unwrap();
        assert_eq!(&recalled.answer[0], snapshot().instances().next().unwrap());
        assert!(recalled.confirmed_at().elapsed() < Duration::from_secs(60));
        let recalled = again.recall_names().unwrap();
        assert_eq!(recalled.answer, names);
        assert!(recalled.confirmed_at().elapsed() < Duration::from_secs(60));
        let files: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().collect();
        assert_eq!(files.len(), 1, "no temporary file is left: {files:?}");
        // It is not mistaken for a file of services.
        assert!(StaticProvider::open(&path).is_err());
    }

    #[test]
    fn a_damaged_file_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot");
        assert_eq!(reason(&path), "missing");
        fs::write(&path, "").unwrap();
        let below_a_file = reason(&path.join("snapshot"));
        assert!(below_a_file.contains("directory"), "{below_a_file}");
        SnapshotFile::open(&path, "test".into())
            .write(&known(vec![snapshot()]))
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
    fn services_that_were_not_confirmed_for_a_week_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot");
        let file = SnapshotFile::open(&path, "test".into());
        let day = Duration::from_secs(24 * 3600);
        for (name, days) in [("recent", 6), ("old", 8)] {
            let confirmed = SystemTime::now() - day * days;
            let entry = Remembered {
                answer: Vec::new(),
                confirmed,
            };
            let services = &mut file.remembered().services;
            services.insert(name.parse().unwrap(), entry);
        }
        file.write(&known(vec![])).unwrap();
        let again = SnapshotFile::open(&path, "test".into());
        assert!(again.recall(&"recent".parse().unwrap()).is_some());
        assert!(again.recall(&"old".parse().unwrap()).is_none());
    }

    #[test]
    fn the_file_of_another_provider_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("snapshot");
        SnapshotFile::open(&path, "staging".into())
            .write(&known(vec![snapshot()]))
            .unwrap();
        assert!(reason(&path).contains("staging"), "{}", reason(&path));
    }
}
