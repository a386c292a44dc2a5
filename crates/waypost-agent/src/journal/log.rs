//! The file: a line that names the format, then records, each behind its length and two checksums.
//!
//! ```text
//! WAYPOST REGISTRY 1\n
//! length (4 bytes) | CRC-32 of the record (4) | CRC-32 of these 8 bytes (4) | record in JSON
//! ```
//!
//! Numbers are little-endian. The last append may have been cut short by a crash: it was never
//! acknowledged, and is cut off. Anything else that is wrong is damage, which is reported rather
//! than guessed around.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde::de::DeserializeOwned;

const FILE: &str = "registry.log";
const NEW_FILE: &str = "registry.log.new";
const LOCK_FILE: &str = "registry.lock";

const FORMAT: &[u8] = b"WAYPOST REGISTRY ";
const HEAD: &[u8] = b"WAYPOST REGISTRY 1\n";

const FRAME: usize = 12;

/// A file smaller than this isn't worth compacting, in bytes.
const SMALL: u64 = 4 * 1024 * 1024;

/// A file so many times larger than the state was is mostly history.
const HISTORY: u64 = 4;

/// Why the registry can't be kept.
#[derive(Debug, thiserror::Error)]
#[error("{}: {what}", file.display())]
pub(crate) struct Fault {
    pub file: PathBuf,
    pub what: String,
}

/// The open file, in a folder that nobody else may use meanwhile.
#[derive(Debug)]
pub(crate) struct Log {
    folder: PathBuf,
    file: File,
    size: u64,
    /// How large the file was when it had been written anew.
    compact_size: u64,
    /// Held open: the lock goes with it.
    _lock: File,
}

impl Fault {
    fn new(file: &Path, what: impl ToString) -> Self {
        Self {
            file: file.to_owned(),
            what: what.to_string(),
        }
    }

    pub(crate) fn ended(gone: &tokio::task::JoinError) -> Self {
        Self::new(Path::new(FILE), gone)
    }
}

impl Log {
    /// Opens the log of a folder and reads it.
    pub(crate) fn open<R: DeserializeOwned>(folder: &Path) -> Result<(Self, Vec<R>), Fault> {
        fs::create_dir_all(folder).map_err(|error| Fault::new(folder, error))?;
        let lock = lock(&folder.join(LOCK_FILE))?;
        let path = folder.join(FILE);
        let mut options = OpenOptions::new();
        let file = options.read(true).append(true).create(true).open(&path);
        let file = file.map_err(|error| Fault::new(&path, error))?;
        let bytes = fs::read(&path).map_err(|error| Fault::new(&path, error))?;
        let (records, end) = read(&bytes).map_err(|what| Fault::new(&path, what))?;
        if end < bytes.len() {
            tracing::warn!(
                file = %path.display(),
                offset = end,
                bytes = bytes.len() - end,
                "the last write was cut short by a crash and is left out: nobody was told that it \
                 had happened"
            );
        }
        let log = Self {
            folder: folder.to_owned(),
            file,
            size: bytes.len() as u64,
            compact_size: 0,
            _lock: lock,
        };
        Ok((log, records))
    }

    pub(crate) fn is_mostly_history(&self) -> bool {
        self.size > SMALL.max(self.compact_size * HISTORY)
    }

    /// Appends records, which are on disk when this returns.
    pub(crate) fn append(&mut self, frames: &[u8]) -> Result<(), Fault> {
        self.file
            .write_all(frames)
            .and_then(|()| self.file.sync_data())
            .map_err(|error| Fault::new(&self.folder.join(FILE), error))?;
        self.size += frames.len() as u64;
        Ok(())
    }

    /// Puts a file with just these records in the place of the present one. A crash leaves one or
    /// the other.
    pub(crate) fn replace(&mut self, records: &[impl Serialize]) -> Result<(), Fault> {
        let (path, new_path) = (self.folder.join(FILE), self.folder.join(NEW_FILE));
        let mut bytes = HEAD.to_vec();
        for record in records {
            frame(record, &mut bytes).map_err(|error| Fault::new(&new_path, error))?;
        }
        let written = || {
            let mut file = File::create(&new_path)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&new_path, &path)?;
            File::open(&self.folder)?.sync_all()?;
            Ok(file)
        };
        self.file = written().map_err(|error: io::Error| Fault::new(&new_path, error))?;
        self.size = bytes.len() as u64;
        self.compact_size = self.size;
        Ok(())
    }
}

/// Adds a record to `bytes` as it stands in the file.
pub(super) fn frame(record: &impl Serialize, bytes: &mut Vec<u8>) -> Result<(), serde_json::Error> {
    let start = bytes.len();
    bytes.extend([0; FRAME]);
    if let Err(error) = serde_json::to_writer(&mut *bytes, record) {
        bytes.truncate(start);
        return Err(error);
    }
    let payload = &bytes[start + FRAME..];
    // Bodies are limited to a megabyte, and so are records.
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let sum = crc32fast::hash(payload);
    bytes[start..start + 4].copy_from_slice(&length.to_le_bytes());
    bytes[start + 4..start + 8].copy_from_slice(&sum.to_le_bytes());
    let sum = crc32fast::hash(&bytes[start..start + 8]);
    bytes[start + 8..start + FRAME].copy_from_slice(&sum.to_le_bytes());
    Ok(())
}

/// The records, and where the last whole one ends. The error says what is damaged, and where.
fn read<R: DeserializeOwned>(bytes: &[u8]) -> Result<(Vec<R>, usize), String> {
    if HEAD.starts_with(bytes) && bytes.len() < HEAD.len() {
        // Nothing was ever written, or not even the first line.
        return Ok((Vec::new(), 0));
    }
    if !bytes.starts_with(HEAD) {
        return Err(match bytes.strip_prefix(FORMAT) {
            Some(rest) => {
                let version = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
                format!(
                    "it is in version {} of the format, and this program knows only version 1",
                    String::from_utf8_lossy(&version[..version.len().min(20)])
                )
            }
            None => {
                "it isn't a registry's log: offset 0 should say \"WAYPOST REGISTRY 1\"".to_owned()
            }
        });
    }
    let mut records = Vec::new();
    let mut at = HEAD.len();
    while at < bytes.len() {
        let damaged = |what: &str| format!("damaged at offset {at}: {what}");
        let rest = &bytes[at..];
        let Some((head, body)) = rest.split_at_checked(FRAME) else {
            break;
        };
        let number = |from: usize| {
            let mut four = [0; 4];
            four.copy_from_slice(&head[from..from + 4]);
            u32::from_le_bytes(four)
        };
        if crc32fast::hash(&head[..8]) != number(8) {
            if rest.iter().all(|byte| *byte == 0) {
                // The file had been made longer, but what belongs there wasn't written.
                break;
            }
            return Err(damaged("the head of a record doesn't fit its checksum"));
        }
        let Some(payload) = body.get(..number(0) as usize) else {
            break;
        };
        let is_last = payload.len() == body.len();
        if crc32fast::hash(payload) != number(4) {
            if is_last {
                break;
            }
            return Err(damaged("a record doesn't fit its checksum"));
        }
        let record = serde_json::from_slice(payload)
            .map_err(|error| damaged(&format!("a record can't be read: {error}")))?;
        records.push(record);
        at += FRAME + payload.len();
    }
    Ok((records, at))
}

fn lock(path: &Path) -> Result<File, Fault> {
    let fault = |error: &dyn ToString| Fault::new(path, error.to_string());
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(false).open(path);
    let file = file.map_err(|error| fault(&error))?;
    file.try_lock().map_err(|error| match error {
        fs::TryLockError::WouldBlock => fault(&"another agent is using this folder"),
        fs::TryLockError::Error(error) => fault(&error),
    })?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log_of(count: u64) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut ends) = (HEAD.to_vec(), vec![HEAD.len()]);
        for i in 0..count {
            frame(&i, &mut bytes).unwrap();
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    #[test]
    fn what_is_cut_short_anywhere_gives_all_whole_records_before_it() {
        let (bytes, ends) = log_of(5);
        for length in 0..=bytes.len() {
            let (records, end) = read::<u64>(&bytes[..length]).unwrap();
            let whole = ends.iter().filter(|end| **end <= length).count();
            assert_eq!(records.len(), whole.saturating_sub(1), "cut at {length}");
            assert!(end <= length);
        }
    }

    #[test]
    fn zeros_at_the_end_are_a_write_that_was_cut_short() {
        let (mut bytes, ends) = log_of(2);
        bytes.extend([0; 100]);
        let (records, end) = read::<u64>(&bytes).unwrap();
        assert_eq!((records.len(), end), (2, ends[2]));
    }

    #[test]
    fn a_wrong_bit_before_the_end_is_named_by_its_record() {
        let (bytes, ends) = log_of(5);
        for at in HEAD.len()..ends[4] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            let start = ends.iter().rfind(|end| **end <= at).unwrap();
            let what = read::<u64>(&damaged).unwrap_err();
            assert!(what.contains(&format!("offset {start}:")), "{at}: {what}");
        }
    }

    #[test]
    fn another_format_is_refused() {
        let what = read::<u64>(b"WAYPOST REGISTRY 2\nx").unwrap_err();
        assert!(what.contains("version 2"), "{what}");
        assert!(read::<u64>(b"something else").is_err());
    }

    #[test]
    fn random_bytes_never_cause_a_panic() {
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..2_000 {
            let mut bytes = log_of(3).0;
            for _ in 0..random.usize(..5) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            bytes.truncate(random.usize(..=bytes.len()));
            let _ = read::<u64>(&bytes);
        }
    }
}
