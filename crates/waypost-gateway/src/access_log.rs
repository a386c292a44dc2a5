//! The access log: one line per request, written when the last byte has been sent or the request has
//! ended early.
//!
//! Each worker formats its lines into its own buffer. A thread writes full buffers, so no request waits
//! for a disk or a pipe.

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use http::Version;
use tokio::time::Instant;

use crate::pages::is_probe;
use crate::stream_info::StreamInfo;

/// A worker passes its buffer on when it has this many bytes, or after a tenth of a second.
const BUFFER: usize = 48 * 1024;
/// The maximum number of buffers that wait to be written. Further lines are lost.
const QUEUE: usize = 256;

/// How a line is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccessLogFormat {
    /// `key=value` pairs, for people.
    #[default]
    Text,
    /// One JSON object per line, for programs.
    Json,
}

/// Where requests are logged.
///
/// ```
/// use waypost_gateway::{AccessLog, AccessLogFormat, Config};
///
/// let mut config = Config::default();
/// config.access_log = Some(AccessLog::to_stderr(AccessLogFormat::Json));
/// ```
#[derive(Clone)]
pub struct AccessLog {
    format: AccessLogFormat,
    lines: SyncSender<Vec<u8>>,
    lost: Arc<LostLines>,
}

/// The number of lines that were not written.
#[derive(Debug, Default)]
pub(crate) struct LostLines {
    /// Too many lines were waiting to be written.
    pub(crate) queue_full: AtomicU64,
    /// Writing failed.
    pub(crate) write_failed: AtomicU64,
}

impl AccessLog {
    /// Logs to the program's stderr.
    pub fn to_stderr(format: AccessLogFormat) -> Self {
        Self::to_writer(io::stderr(), format)
    }

    /// Logs to the program's stdout.
    pub fn to_stdout(format: AccessLogFormat) -> Self {
        Self::to_writer(io::stdout(), format)
    }

    /// Appends to a file, which is created if it doesn't exist. If it is renamed, a new one is created
    /// within a second, so a log can be rotated by renaming it.
    ///
    /// # Errors
    /// If the file can't be opened.
    pub fn to_file(path: &Path, format: AccessLogFormat) -> io::Result<Self> {
        let path = path.to_owned();
        let mut file = open(&path)?;
        Ok(Self::start(format, move |lines| {
            if !is_at(&file, &path)
                && let Ok(new) = open(&path)
            {
                file = new;
            }
            file.write_all(lines)
        }))
    }

    /// Logs to any writer, on a separate thread.
    pub fn to_writer(mut writer: impl Write + Send + 'static, format: AccessLogFormat) -> Self {
        Self::start(format, move |lines| {
            writer.write_all(lines)?;
            writer.flush()
        })
    }

    fn start(
        format: AccessLogFormat,
        mut write: impl FnMut(&[u8]) -> io::Result<()> + Send + 'static,
    ) -> Self {
        let (lines, received) = sync_channel::<Vec<u8>>(QUEUE);
        let lost = Arc::<LostLines>::default();
        let counted = Arc::clone(&lost);
        let writing = move || {
            let mut is_failing = false;
            for lines in received {
                let result = write(&lines);
                if let Err(error) = &result {
                    count(&counted.write_failed, &lines);
                    if !is_failing {
                        tracing::warn!(%error, "the access log can't be written; lines are lost");
                    }
                }
                is_failing = result.is_err();
            }
        };
        let spawned = std::thread::Builder::new()
            .name("access-log".into())
            .spawn(writing);
        if let Err(error) = spawned {
            tracing::warn!(%error, "can't start the thread of the access log; requests are not logged");
        }
        Self {
            format,
            lines,
            lost,
        }
    }

    pub(crate) fn lost(&self) -> &LostLines {
        &self.lost
    }
}

/// Adds these lines to a count of lost ones, and returns the previous count.
fn count(lost: &AtomicU64, lines: &[u8]) -> u64 {
    let more = lines.iter().filter(|byte| **byte == b'\n').count() as u64;
    lost.fetch_add(more, Ordering::Relaxed)
}

impl fmt::Debug for AccessLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessLog")
            .field("format", &self.format)
            .finish_non_exhaustive()
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

/// Whether an open file is still the one at this path.
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    match (file.metadata(), path.metadata()) {
        (Ok(open), Ok(there)) => open.ino() == there.ino() && open.dev() == there.dev(),
        _ => false,
    }
}

/// The access log of one worker.
pub(crate) struct LogBuffer {
    log: Option<AccessLog>,
    buffer: Mutex<Buffer>,
}

#[derive(Default)]
struct Buffer {
    lines: String,
    /// The current second, and when the next one begins.
    date: String,
    next_second: Option<Instant>,
}

impl LogBuffer {
    pub(crate) fn new(log: Option<AccessLog>) -> Self {
        Self {
            log,
            buffer: Mutex::default(),
        }
    }

    /// Adds the line of a request that ends now. `peer` is the address of the client.
    pub(crate) fn write(&self, info: &StreamInfo, peer: &str) {
        let Some(log) = &self.log else {
            return;
        };
        // Registries and orchestrators send one every few seconds.
        if info.route.is_none() && is_probe(info.uri.path()) {
            return;
        }
        let ended = Instant::now();
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        buffer.update_date(ended);
        let Buffer { lines, date, .. } = &mut *buffer;
        write_line(lines, log.format, date, info, peer, info.until(ended));
        if lines.len() >= BUFFER {
            buffer.hand_over(log);
        }
    }

    /// Passes the lines to the writing thread.
    pub(crate) fn flush(&self) {
        if let Some(log) = &self.log {
            let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
            buffer.hand_over(log);
        }
    }
}

impl Drop for LogBuffer {
    fn drop(&mut self) {
        self.flush();
    }
}

impl Buffer {
    fn hand_over(&mut self, log: &AccessLog) {
        if self.lines.is_empty() {
            return;
        }
        let capacity = self.lines.capacity();
        let lines = std::mem::replace(&mut self.lines, String::with_capacity(capacity));
        match log.lines.try_send(lines.into_bytes()) {
            Ok(()) => {}
            Err(TrySendError::Full(lines)) => {
                if count(&log.lost.queue_full, &lines) == 0 {
                    tracing::warn!("the access log is written too slowly; lines are lost");
                }
            }
            Err(TrySendError::Disconnected(lines)) => {
                count(&log.lost.write_failed, &lines);
            }
        }
    }

    /// Formats the date once a second, which is also how often the system's clock is read.
    fn update_date(&mut self, now: Instant) {
        if self.next_second.is_none_or(|next| now >= next) {
            let time = SystemTime::now()
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default();
            self.date = rfc3339(time.as_secs());
            let passed = Duration::from_nanos(time.subsec_nanos().into());
            self.next_second = Some(now + Duration::from_secs(1) - passed);
        }
    }
}

/// A time in UTC, by the days-to-civil algorithm of Howard Hinnant.
fn rfc3339(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// The name of a field, with its separators in each format.
#[derive(Clone, Copy)]
struct Name {
    text: &'static str,
    json: &'static str,
}

macro_rules! name {
    ($name:literal) => {
        Name {
            text: concat!(" ", $name, "="),
            json: concat!(",\"", $name, "\":"),
        }
    };
}

/// A line being written, in either format: ` name=value` or `,"name":value`.
struct Line<'a> {
    out: &'a mut String,
    format: AccessLogFormat,
}

impl Line<'_> {
    fn name(&mut self, name: Name) {
        self.out.push_str(match self.format {
            AccessLogFormat::Text => name.text,
            AccessLogFormat::Json => name.json,
        });
    }

    fn text(&mut self, name: Name, value: &str) {
        self.name(name);
        write_quoted(self.out, value);
    }

    /// Text in which nothing has to be escaped.
    fn plain_text(&mut self, name: Name, value: &str) {
        debug_assert!(value.bytes().all(is_plain), "{value:?}");
        self.name(name);
        self.out.push('"');
        self.out.push_str(value);
        self.out.push('"');
    }

    /// A word that needs no quotes in text.
    fn word(&mut self, name: Name, value: &str) {
        self.name(name);
        match self.format {
            AccessLogFormat::Text => self.out.push_str(value),
            AccessLogFormat::Json => write_quoted(self.out, value),
        }
    }

    fn number(&mut self, name: Name, value: u64) {
        self.name(name);
        self.digits(value);
    }

    fn digits(&mut self, value: u64) {
        match u8::try_from(value) {
            Ok(digit @ 0..10) => self.out.push(char::from(b'0' + digit)),
            _ => self.out.push_str(itoa::Buffer::new().format(value)),
        }
    }

    /// Milliseconds with three decimals.
    fn millis(&mut self, name: Name, time: Duration) {
        let micros = time.as_micros() as u64;
        self.number(name, micros / 1000);
        self.out.push('.');
        let rest = micros % 1000;
        self.out.push_str(match rest {
            0..10 => "00",
            10..100 => "0",
            _ => "",
        });
        self.digits(rest);
    }
}

fn write_line(
    out: &mut String,
    format: AccessLogFormat,
    date: &str,
    info: &StreamInfo,
    peer: &str,
    duration: Duration,
) {
    match format {
        AccessLogFormat::Text => {
            out.push_str(date);
            out.push_str(" access");
        }
        AccessLogFormat::Json => {
            out.push_str("{\"time\":\"");
            out.push_str(date);
            out.push('"');
        }
    }
    let mut line = Line { out, format };
    line.word(name!("method"), info.method.as_str());
    line.text(name!("path"), info.uri.path());
    line.word(name!("version"), version(info.version));
    if let Some(status) = info.status {
        line.name(name!("status"));
        line.out.push_str(status.as_str());
    }
    if let Some(route) = &info.route {
        line.text(name!("route"), route);
    }
    if let Some(service) = &info.service {
        line.text(name!("service"), service.name().as_str());
    }
    if let Some(instance) = &info.instance {
        line.text(name!("instance"), instance.id().as_str());
    }
    if let Some(key) = &info.api_key {
        line.text(name!("key"), key);
    }
    line.number(name!("attempts"), info.attempts.into());
    if let Some(stale) = info.stale {
        line.millis(name!("stale_ms"), stale);
    }
    if let Some(first_byte) = info.first_byte {
        line.millis(name!("first_byte_ms"), first_byte);
    }
    line.millis(name!("duration_ms"), duration);
    let request_body = info.request_body.as_ref();
    line.number(
        name!("request_bytes"),
        request_body.map_or(0, |body| body.bytes()),
    );
    line.number(name!("response_bytes"), info.response_bytes);
    line.plain_text(name!("end"), info.end.as_str());
    if let Some(cause) = &info.cause {
        line.text(name!("cause"), cause);
    }
    line.word(name!("peer"), peer);
    // An id with characters that need escaping has been replaced by a new one.
    line.plain_text(
        name!("request_id"),
        info.request_id.to_str().unwrap_or_default(),
    );
    out.push_str(match format {
        AccessLogFormat::Text => "\n",
        AccessLogFormat::Json => "}\n",
    });
}

fn version(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}
/// Writes a JSON string. Characters that could control a terminal or forge a line are escaped.
fn write_quoted(out: &mut String, text: &str) {
    out.push('"');
    // Without an early exit, so that the compiler can vectorize the loop.
    if text.bytes().fold(true, |all, byte| all & is_plain(byte)) {
        out.push_str(text);
    } else {
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                ' '..='~' => out.push(c),
                c => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        // Writing to a string can't fail.
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
            }
        }
    }
    out.push('"');
}

fn is_plain(byte: u8) -> bool {
    matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\'
}

#[cfg(test)]
mod tests {
    use waypost_testkit::Logs;

    use super::*;

    #[test]
    fn dates_are_in_utc() {
        assert_eq!(rfc3339(0), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(951_782_399), "2000-02-28T23:59:59Z");
        assert_eq!(rfc3339(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(951_868_800), "2000-03-01T00:00:00Z");
        assert_eq!(rfc3339(978_307_199), "2000-12-31T23:59:59Z");
        assert_eq!(rfc3339(4_107_542_399), "2100-02-28T23:59:59Z");
        assert_eq!(rfc3339(4_107_542_400), "2100-03-01T00:00:00Z");
        assert_eq!(rfc3339(1_709_164_800), "2024-02-29T00:00:00Z");
    }

    #[test]
    fn times_are_milliseconds_with_three_decimals() {
        for (micros, text) in [
            (0, " t=0.000"),
            (7, " t=0.007"),
            (10, " t=0.010"),
            (99, " t=0.099"),
            (100, " t=0.100"),
            (1_023_456, " t=1023.456"),
        ] {
            let (mut out, format) = (String::new(), AccessLogFormat::Text);
            let mut line = Line {
                out: &mut out,
                format,
            };
            line.millis(name!("t"), Duration::from_micros(micros));
            assert_eq!(out, text);
        }
    }

    #[test]
    fn versions_are_named_as_in_a_request_line() {
        for (of_request, name) in [
            (Version::HTTP_10, "HTTP/1.0"),
            (Version::HTTP_11, "HTTP/1.1"),
            (Version::HTTP_2, "HTTP/2"),
        ] {
            assert_eq!(version(of_request), name);
        }
    }

    #[test]
    fn lines_that_find_no_place_in_the_queue_are_counted() {
        let (logs, _guard) = Logs::take();
        let (lines, received) = sync_channel(1);
        let log = AccessLog {
            format: AccessLogFormat::Text,
            lines,
            lost: Arc::default(),
        };
        let hand_over = |lines: &str| {
            let mut buffer = Buffer {
                lines: lines.to_owned(),
                ..Buffer::default()
            };
            buffer.hand_over(&log);
            assert_eq!(buffer.lines, "");
            let LostLines {
                queue_full,
                write_failed,
            } = log.lost();
            [queue_full, write_failed].map(|count| count.load(Ordering::Relaxed))
        };
        assert_eq!(hand_over("one\n"), [0, 0]);
        assert_eq!(hand_over("two\nthree\n"), [2, 0]);
        assert_eq!(logs.lines(&["written too slowly"]).len(), 1);
        assert_eq!(hand_over("four\n"), [3, 0]);
        assert_eq!(received.recv().unwrap(), b"one\n");
        assert_eq!(hand_over("five\n"), [3, 0]);
        drop(received);
        assert_eq!(hand_over("six\n"), [3, 1]);
        assert_eq!(logs.lines(&["written too slowly"]).len(), 1);
    }

    #[test]
    fn the_date_is_that_of_the_current_second() {
        let now = || {
            let time = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
            time.unwrap().as_secs()
        };
        let mut buffer = Buffer::default();
        let (before, at) = (now(), Instant::now());
        buffer.update_date(at);
        let dates: Vec<_> = (before..=now()).map(rfc3339).collect();
        assert!(dates.contains(&buffer.date), "{} in {dates:?}", buffer.date);
        let next = buffer.next_second.unwrap();
        assert!(at < next && next <= at + Duration::from_secs(1));
        buffer.date.clear();
        buffer.update_date(next - Duration::from_nanos(1));
        assert_eq!(buffer.date, "");
        buffer.update_date(next);
        assert_ne!(buffer.date, "");
    }

    #[test]
    fn text_from_outside_is_escaped() {
        let mut out = String::new();
        write_quoted(&mut out, "a\"b\\c\u{1b}[2J\nd\u{2028}😀");
        assert_eq!(out, r#""a\"b\\c\u001b[2J\u000ad\u2028\ud83d\ude00""#);
        let parsed: String = serde_json::from_str(&out).unwrap();
        assert_eq!(parsed, "a\"b\\c\u{1b}[2J\nd\u{2028}😀");
    }

    #[test]
    fn a_log_that_is_renamed_is_continued_in_a_new_file() {
        let folder = tempfile::tempdir().unwrap();
        let (path, old) = (folder.path().join("log"), folder.path().join("log.1"));
        let log = AccessLog::to_file(&path, AccessLogFormat::Text).unwrap();
        let wait_for = |path: &Path, text: &str| {
            let deadline = Instant::now() + Duration::from_secs(30);
            while std::fs::read_to_string(path).unwrap_or_default() != text {
                assert!(Instant::now() < deadline, "{text} in {path:?}");
                std::thread::yield_now();
            }
        };
        log.lines.send(b"one\n".to_vec()).unwrap();
        wait_for(&path, "one\n");
        std::fs::rename(&path, &old).unwrap();
        log.lines.send(b"two\n".to_vec()).unwrap();
        wait_for(&path, "two\n");
        wait_for(&old, "one\n");
        // Some programs that rotate logs create the new file.
        let older = folder.path().join("log.2");
        std::fs::rename(&path, &older).unwrap();
        std::fs::write(&path, "").unwrap();
        log.lines.send(b"three\n".to_vec()).unwrap();
        wait_for(&path, "three\n");
        wait_for(&older, "two\n");
    }
}
