//! The journal file: a line with the format version, then records, each preceded by its length and
//! two checksums.
//!
//! ```text
//! WAYPOST REGISTRY 1\n
//! length (4 bytes) | CRC-32 of the record (4) | CRC-32 of these 8 bytes (4) | record in JSON
//! ```
//!
//! Numbers are little-endian. A crash can truncate the last append. It was never acknowledged and is
//! discarded. Any other damage is an error, and the file is left unchanged.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::{fs, io};

use serde::Serialize;
use serde::de::DeserializeOwned;

const FILE: &str = "registry.log";
const NEW_FILE: &str = "registry.log.new";
const LOCK_FILE: &str = "registry.lock";

const MAGIC: &[u8] = b"WAYPOST REGISTRY ";
const HEADER: &[u8] = b"WAYPOST REGISTRY 1\n";

/// The size of the length and checksums before each record.
const FRAME_HEAD: usize = 12;

/// The mode of the files.
#[cfg(unix)]
const PRIVATE_FILE: u32 = 0o600;

/// Smaller files aren't compacted. In bytes.
const MIN_COMPACTION_SIZE: u64 = 4 * 1024 * 1024;

/// A file is compacted when it is this many times larger than after the last compaction.
const COMPACTION_FACTOR: u64 = 4;

/// Why the journal can't be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{}: {message}", file.display())]
pub(crate) struct JournalError {
    pub file: PathBuf,
    pub message: String,
}

/// An open journal. Its directory is locked against other agents.
#[derive(Debug)]
pub(crate) struct JournalFile {
    directory: PathBuf,
    file: File,
    size: u64,
    /// The size of the file after the last compaction.
    compacted_size: u64,
    /// Whether the file ends with a complete record.
    is_truncated: bool,
    /// Closing the file releases the lock.
    _lock: File,
}

impl JournalError {
    fn new(file: &Path, message: impl ToString) -> Self {
        Self {
            file: file.to_owned(),
            message: message.to_string(),
        }
    }

    /// The error of an injected fault.
    pub(crate) fn full_disk() -> Self {
        Self::new(Path::new(FILE), io::Error::from(io::ErrorKind::StorageFull))
    }

    pub(crate) fn task_failed(error: &tokio::task::JoinError) -> Self {
        Self::new(Path::new(FILE), error)
    }
}

impl JournalFile {
    /// Opens the journal in a directory, which is created if needed, and reads its records.
    pub(crate) fn open<R: DeserializeOwned>(
        directory: &Path,
    ) -> Result<(Self, Vec<R>), JournalError> {
        create_private_directory(directory).map_err(|error| JournalError::new(directory, error))?;
        let lock = lock(&directory.join(LOCK_FILE))?;
        let path = directory.join(FILE);
        let mut options = OpenOptions::new();
        let file = open_private(options.read(true).append(true).create(true), &path);
        let file = file.map_err(|error| JournalError::new(&path, error))?;
        let bytes = fs::read(&path).map_err(|error| JournalError::new(&path, error))?;
        let (records, end) = read(&bytes).map_err(|message| JournalError::new(&path, message))?;
        if end < bytes.len() {
            tracing::warn!(
                file = %path.display(),
                offset = end,
                bytes = bytes.len() - end,
                "discarded the last write, which a crash had truncated and which was never \
                 acknowledged"
            );
        }
        let journal = Self {
            directory: directory.to_owned(),
            file,
            size: bytes.len() as u64,
            compacted_size: 0,
            is_truncated: true,
            _lock: lock,
        };
        Ok((journal, records))
    }

    pub(crate) fn needs_compaction(&self) -> bool {
        self.size > MIN_COMPACTION_SIZE.max(self.compacted_size * COMPACTION_FACTOR)
    }

    /// Whether the file is much larger than after the last compaction, so that another compaction could
    /// free space on a full disk.
    pub(crate) fn can_shrink(&self) -> bool {
        self.size > self.compacted_size * 2
    }

    /// Appends encoded records. They are on disk when this returns. After an error the file is
    /// unchanged.
    pub(crate) fn append(&mut self, frames: &[u8]) -> Result<(), JournalError> {
        let written = self.append_at_end(frames);
        if written.is_err() {
            // If this fails too, the next append tries it again.
            self.is_truncated = self.truncate().is_ok();
        }
        written.map_err(|error| JournalError::new(&self.directory.join(FILE), error))?;
        self.size += frames.len() as u64;
        Ok(())
    }

    fn append_at_end(&mut self, frames: &[u8]) -> io::Result<()> {
        if !self.is_truncated {
            self.truncate()?;
            self.is_truncated = true;
        }
        self.file.write_all(frames)?;
        self.file.sync_data()
    }

    /// Removes an incomplete append.
    fn truncate(&mut self) -> io::Result<()> {
        self.file.set_len(self.size)?;
        self.file.seek(SeekFrom::Start(self.size))?;
        self.file.sync_data()
    }

    /// Reads the records again.
    pub(crate) fn read_again<R: DeserializeOwned>(&self) -> Result<Vec<R>, JournalError> {
        let path = self.directory.join(FILE);
        let mut bytes = fs::read(&path).map_err(|error| JournalError::new(&path, error))?;
        bytes.truncate(usize::try_from(self.size).unwrap_or(usize::MAX));
        let records = read(&bytes).map_err(|message| JournalError::new(&path, message))?;
        Ok(records.0)
    }

    /// Replaces the file by one with only these records. A crash leaves either the old or the new
    /// file.
    pub(crate) fn rewrite(&mut self, records: &[impl Serialize]) -> Result<(), JournalError> {
        let (path, new_path) = (self.directory.join(FILE), self.directory.join(NEW_FILE));
        let mut bytes = HEADER.to_vec();
        for record in records {
            append_frame(record, &mut bytes)
                .map_err(|error| JournalError::new(&new_path, error))?;
        }
        let written = || {
            let mut options = OpenOptions::new();
            let options = options.write(true).create(true).truncate(true);
            let mut file = open_private(options, &new_path)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&new_path, &path)?;
            File::open(&self.directory)?.sync_all()?;
            Ok(file)
        };
        self.file = written().map_err(|error: io::Error| {
            // Frees the space, because the disk may be full. The first error is the one to report.
            let _ = fs::remove_file(&new_path);
            JournalError::new(&new_path, error)
        })?;
        self.is_truncated = true;
        self.size = bytes.len() as u64;
        self.compacted_size = self.size;
        Ok(())
    }
}

/// Appends a record to `bytes` in the format of the file.
pub(super) fn append_frame(
    record: &impl Serialize,
    bytes: &mut Vec<u8>,
) -> Result<(), serde_json::Error> {
    let start = bytes.len();
    bytes.extend([0; FRAME_HEAD]);
    if let Err(error) = serde_json::to_writer(&mut *bytes, record) {
        bytes.truncate(start);
        return Err(error);
    }
    let payload = &bytes[start + FRAME_HEAD..];
    // A record can't be this large, because request bodies are limited to 1 MiB.
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let sum = crc32fast::hash(payload);
    bytes[start..start + 4].copy_from_slice(&length.to_le_bytes());
    bytes[start + 4..start + 8].copy_from_slice(&sum.to_le_bytes());
    let sum = crc32fast::hash(&bytes[start..start + 8]);
    bytes[start + 8..start + FRAME_HEAD].copy_from_slice(&sum.to_le_bytes());
    Ok(())
}

/// The records in encoded frames.
pub(super) fn read_frames<R: DeserializeOwned>(frames: &[u8]) -> Vec<R> {
    let bytes = [HEADER, frames].concat();
    // Frames in memory aren't damaged.
    read(&bytes).map(|(records, _)| records).unwrap_or_default()
}

/// The records, and the offset at which the last complete one ends. The error names the damage and
/// its offset.
fn read<R: DeserializeOwned>(bytes: &[u8]) -> Result<(Vec<R>, usize), String> {
    if HEADER.starts_with(bytes) && bytes.len() < HEADER.len() {
        // The file is new, or its first line wasn't written completely.
        return Ok((Vec::new(), 0));
    }
    if !bytes.starts_with(HEADER) {
        return Err(match bytes.strip_prefix(MAGIC) {
            Some(rest) => {
                let version = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
                format!(
                    "format version {} is not supported, only version 1",
                    String::from_utf8_lossy(&version[..version.len().min(20)])
                )
            }
            None => "not a registry journal: it must begin with \"WAYPOST REGISTRY 1\"".to_owned(),
        });
    }
    let mut records = Vec::new();
    let mut at = HEADER.len();
    while at < bytes.len() {
        let damaged = |what: &str| format!("damaged at offset {at}: {what}");
        let rest = &bytes[at..];
        let Some((head, body)) = rest.split_at_checked(FRAME_HEAD) else {
            break;
        };
        let number = |from: usize| {
            let mut four = [0; 4];
            four.copy_from_slice(&head[from..from + 4]);
            u32::from_le_bytes(four)
        };
        if crc32fast::hash(&head[..8]) != number(8) {
            if rest.iter().all(|byte| *byte == 0) {
                // The file was extended, but its content wasn't written.
                break;
            }
            return Err(damaged("checksum mismatch in the head of a record"));
        }
        let Some(payload) = body.get(..number(0) as usize) else {
            break;
        };
        let is_last = payload.len() == body.len();
        if crc32fast::hash(payload) != number(4) {
            if is_last {
                break;
            }
            return Err(damaged("checksum mismatch in a record"));
        }
        let record = serde_json::from_slice(payload)
            .map_err(|error| damaged(&format!("invalid record: {error}")))?;
        records.push(record);
        at += FRAME_HEAD + payload.len();
    }
    Ok((records, at))
}

/// Creates a directory that only this user can read, if there is none.
fn create_private_directory(directory: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.recursive(true).create(directory)
}

/// Opens a file that only this user can read: it holds values and credentials of clients. The mode
/// of an existing file is corrected.
fn open_private(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, PRIVATE_FILE);
    let file = options.open(path)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;

        if file.metadata()?.permissions().mode() & 0o077 != 0 {
            file.set_permissions(fs::Permissions::from_mode(PRIVATE_FILE))?;
        }
    }
    Ok(file)
}

fn lock(path: &Path) -> Result<File, JournalError> {
    let failed = |error: &dyn ToString| JournalError::new(path, error.to_string());
    let mut options = OpenOptions::new();
    let file = open_private(options.write(true).create(true).truncate(false), path);
    let file = file.map_err(|error| failed(&error))?;
    file.try_lock().map_err(|error| match error {
        fs::TryLockError::WouldBlock => failed(&"another agent is using this directory"),
        fs::TryLockError::Error(error) => failed(&error),
    })?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal_of(count: u64) -> (Vec<u8>, Vec<usize>) {
        let (mut bytes, mut ends) = (HEADER.to_vec(), vec![HEADER.len()]);
        for i in 0..count {
            append_frame(&i, &mut bytes).unwrap();
            ends.push(bytes.len());
        }
        (bytes, ends)
    }

    #[test]
    fn truncation_at_any_offset_keeps_the_complete_records_before_it() {
        let (bytes, ends) = journal_of(5);
        for length in 0..=bytes.len() {
            let (records, end) = read::<u64>(&bytes[..length]).unwrap();
            let whole = ends.iter().filter(|end| **end <= length).count();
            assert_eq!(records.len(), whole.saturating_sub(1), "cut at {length}");
            assert!(end <= length);
        }
    }

    fn framed(record: u64) -> Vec<u8> {
        let mut frame = Vec::new();
        append_frame(&record, &mut frame).unwrap();
        frame
    }

    #[test]
    fn what_a_failed_append_has_left_is_removed_before_the_next_one() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = JournalFile::open::<u64>(folder.path()).unwrap();
        journal.rewrite(&[1_u64]).unwrap();
        let path = folder.path().join(FILE);
        let writable = OpenOptions::new().append(true).open(&path).unwrap();
        // Neither the append nor its removal succeeds.
        journal.file = File::open(&path).unwrap();
        journal.append(&framed(2)).unwrap_err();
        (&writable).write_all(&framed(2)[..5]).unwrap();
        journal.file = writable;
        journal.append(&framed(3)).unwrap();
        assert_eq!(journal.read_again::<u64>().unwrap(), [1, 3]);
        let (records, end) = read::<u64>(&fs::read(&path).unwrap()).unwrap();
        assert_eq!((records, end as u64), (vec![1, 3], journal.size));
    }

    #[test]
    fn a_file_can_shrink_once_it_is_more_than_twice_as_large_as_after_its_compaction() {
        let folder = tempfile::tempdir().unwrap();
        let (mut journal, _) = JournalFile::open::<u64>(folder.path()).unwrap();
        journal.rewrite(&[1_u64]).unwrap();
        let size = usize::try_from(journal.size).unwrap();
        journal.append(&vec![0; size]).unwrap();
        assert!(!journal.can_shrink());
        journal.append(&[0]).unwrap();
        assert!(journal.can_shrink());
    }

    #[test]
    fn trailing_zeros_are_an_incomplete_write() {
        let (mut bytes, ends) = journal_of(2);
        bytes.extend([0; 100]);
        let (records, end) = read::<u64>(&bytes).unwrap();
        assert_eq!((records.len(), end), (2, ends[2]));
    }

    #[test]
    fn a_flipped_bit_is_reported_with_the_offset_of_its_record() {
        let (bytes, ends) = journal_of(5);
        for at in HEADER.len()..ends[4] {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            let start = ends.iter().rfind(|end| **end <= at).unwrap();
            let error = read::<u64>(&damaged).unwrap_err();
            assert!(error.contains(&format!("offset {start}:")), "{at}: {error}");
        }
    }

    #[test]
    fn other_formats_are_rejected() {
        let error = read::<u64>(b"WAYPOST REGISTRY 2\nx").unwrap_err();
        assert!(error.contains("version 2"), "{error}");
        assert!(read::<u64>(b"something else").is_err());
    }

    #[test]
    fn random_corruption_never_panics() {
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..2_000 {
            let mut bytes = journal_of(3).0;
            for _ in 0..random.usize(..5) {
                let at = random.usize(..bytes.len());
                bytes[at] = random.u8(..);
            }
            bytes.truncate(random.usize(..=bytes.len()));
            let _ = read::<u64>(&bytes);
        }
    }
}
