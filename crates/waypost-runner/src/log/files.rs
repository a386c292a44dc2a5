//! A sink that keeps the output in files, so that it survives the end of the stack.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use super::line::{Line, LogSink, Stream};
use super::sanitize::sanitize;

/// The size at which a file is renamed to `NAME.log.1` and a new one is started.
const FULL: u64 = 10 * 1024 * 1024;

/// Writes the lines of each service to a file `NAME.log` in a folder:
///
/// ```text
/// 2026-01-31T12:00:00.123Z orders-1 stdout listening on 4100
/// ```
///
/// Escape sequences and control characters are left out. When a file has 10 MiB, it is renamed to
/// `NAME.log.1`, which replaces an older one. After a write to a file has failed, its lines are dropped.
///
/// ```no_run
/// use waypost_runner::LogFiles;
///
/// let files = LogFiles::create(".waypost/logs".as_ref())?;
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct LogFiles {
    folder: PathBuf,
    /// The files by service. `None` if a file can't be written.
    files: HashMap<Arc<str>, Option<LogFile>>,
}

#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    writer: BufWriter<File>,
    size: u64,
}

/// A line of a file, as [`LogFiles`] writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct KeptLine {
    /// When it was read.
    pub at: SystemTime,
    /// The instance.
    pub instance: String,
    /// Its source.
    pub stream: Stream,
    /// The text.
    pub text: String,
}

impl LogFiles {
    /// Creates the folder if it doesn't exist. Appends to existing files.
    ///
    /// # Errors
    /// The folder can't be created.
    pub fn create(folder: &Path) -> io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
            files: HashMap::new(),
        })
    }

    /// The stored lines of a service, oldest first. Lines in another format are skipped.
    pub fn read(folder: &Path, service: &str) -> Vec<KeptLine> {
        let path = folder.join(format!("{service}.log"));
        let texts = [rotated(&path), path].into_iter();
        let texts = texts.filter_map(|path| fs::read(path).ok());
        texts
            .flat_map(|bytes| {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                text.lines().filter_map(KeptLine::parse).collect::<Vec<_>>()
            })
            .collect()
    }

    /// The services that have a file in the folder.
    pub fn services(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                Some(name.strip_suffix(".log")?.to_owned())
            })
            .collect();
        names.sort();
        names
    }
}

impl LogSink for LogFiles {
    fn write(&mut self, lines: &[Line]) -> io::Result<()> {
        let Some(service) = lines.first().map(|line| line.service.clone()) else {
            return Ok(());
        };
        let folder = &self.folder;
        let slot = self
            .files
            .entry(service.clone())
            .or_insert_with(|| LogFile::open(folder.join(format!("{service}.log"))).ok());
        if let Some(file) = slot
            && file.write(lines).is_err()
        {
            *slot = None;
        }
        Ok(())
    }
}

impl LogFile {
    fn open(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create(true).open(&path)?;
        Ok(Self {
            size: file.metadata()?.len(),
            writer: BufWriter::new(file),
            path,
        })
    }

    fn write(&mut self, lines: &[Line]) -> io::Result<()> {
        for line in lines {
            let text = format!(
                "{} {} {} {}\n",
                humantime::format_rfc3339_millis(line.at),
                line.instance,
                stream_name(line.stream),
                sanitize(&line.text, false)
            );
            self.writer.write_all(text.as_bytes())?;
            self.size += text.len() as u64;
        }
        self.writer.flush()?;
        if self.size >= FULL {
            fs::rename(&self.path, rotated(&self.path))?;
            *self = Self::open(std::mem::take(&mut self.path))?;
        }
        Ok(())
    }
}

impl KeptLine {
    fn parse(line: &str) -> Option<Self> {
        let mut parts = line.splitn(4, ' ');
        Some(Self {
            at: humantime::parse_rfc3339(parts.next()?).ok()?,
            instance: parts.next()?.to_owned(),
            stream: match parts.next()? {
                "stdout" => Stream::Stdout,
                "stderr" => Stream::Stderr,
                "event" => Stream::Runner,
                _ => return None,
            },
            text: parts.next()?.to_owned(),
        })
    }
}

fn stream_name(stream: Stream) -> &'static str {
    match stream {
        Stream::Stdout => "stdout",
        Stream::Stderr => "stderr",
        Stream::Runner => "event",
    }
}

/// The path to which a full file is renamed.
fn rotated(path: &Path) -> PathBuf {
    path.with_extension("log.1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_survive_the_end_of_the_sink_without_escape_sequences() {
        let dir = tempfile::tempdir().unwrap();
        for text in ["\x1b[31mred\x1b[0m and\0 more", "second run"] {
            let mut files = LogFiles::create(dir.path()).unwrap();
            files.write(&[Line::sample(text)]).unwrap();
        }
        let kept = LogFiles::read(dir.path(), "a");
        let texts: Vec<_> = kept.iter().map(|line| line.text.as_str()).collect();
        assert_eq!(texts, ["red and\u{fffd} more", "second run"]);
        assert_eq!(LogFiles::services(dir.path()), ["a"]);
    }

    #[test]
    fn each_line_is_kept_with_its_time_instance_and_source() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = LogFiles::create(&dir.path().join("deep/logs")).unwrap();
        let folder = dir.path().join("deep/logs");
        let line = |stream, text: &str| Line {
            stream,
            instance: "a-2".into(),
            ..Line::sample(text)
        };
        let lines = [
            line(Stream::Stdout, "one two  three"),
            line(Stream::Stderr, ""),
            line(Stream::Runner, "healthy"),
        ];
        files.write(&[]).unwrap();
        files.write(&lines).unwrap();
        let kept = LogFiles::read(&folder, "a");
        assert_eq!(kept.len(), lines.len());
        for (kept, line) in kept.iter().zip(&lines) {
            assert_eq!((kept.at, kept.stream), (line.at, line.stream));
            assert_eq!((&*kept.instance, &*kept.text), ("a-2", &*line.text));
        }
        // What another program has written is left out.
        let text = "no time\n2026-01-31T12:00:00Z a stdin x\n2026-01-31T12:00:00Z a\n";
        fs::write(folder.join("b.v1.log"), text).unwrap();
        fs::write(
            folder.join("b.v1.log.1"),
            "2026-01-31T12:00:00Z b stdout old\n",
        )
        .unwrap();
        let kept = LogFiles::read(&folder, "b.v1");
        assert_eq!((kept.len(), &*kept[0].text), (1, "old"));
        assert_eq!(LogFiles::services(&folder), ["a", "b.v1"]);
        assert_eq!(LogFiles::services(&dir.path().join("none")), [""; 0]);
        assert_eq!(LogFiles::read(&folder, "none"), []);
    }

    #[test]
    fn a_full_file_is_kept_once_and_a_new_one_is_begun() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = LogFiles::create(dir.path()).unwrap();
        let long = Line::sample(&"x".repeat(64 * 1024));
        for _ in 0..500 {
            files.write(std::slice::from_ref(&long)).unwrap();
        }
        let size = |name: &str| fs::metadata(dir.path().join(name)).unwrap().len();
        assert!(size("a.log") < FULL && size("a.log.1") < FULL + 128 * 1024);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
        assert!(!LogFiles::read(dir.path(), "a").is_empty());
    }
}
