//! Reads one output stream of one program.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::line::{Line, Stream};
use super::recent::RecentLines;
use super::splitter::LineSplitter;
use super::writer::LogWriter;
use crate::probe::LogMatch;

/// How many bytes are read, and sent to the sink as one batch, at once.
const BATCH_BYTES: usize = 16 * 1024;

/// Reads a stream to its end, and both keeps its lines and writes them to the log. Each is also
/// shown to the readiness check that looks for a line.
pub(crate) async fn read_lines(
    mut reader: impl AsyncRead + Unpin,
    instance: Arc<str>,
    stream: Stream,
    recent: Arc<RecentLines>,
    log: LogWriter,
    wanted: Option<LogMatch>,
) {
    let mut splitter = LineSplitter::default();
    let mut buffer = vec![0; BATCH_BYTES];
    loop {
        // A pipe that fails once keeps failing, so an error counts as the end of the stream.
        let read = reader.read(&mut buffer).await.unwrap_or(0);
        let at = SystemTime::now();
        let mut lines = Vec::new();
        let mut push = |bytes: &[u8], truncated| {
            let text = String::from_utf8_lossy(bytes);
            if let Some(wanted) = &wanted {
                wanted.line(&text);
            }
            lines.push(Line {
                instance: instance.clone(),
                stream,
                at,
                text: text.into(),
                truncated,
            });
        };
        if read == 0 {
            splitter.finish(&mut push);
        } else {
            splitter.push(&buffer[..read], &mut push);
        }
        if !lines.is_empty() {
            recent.extend(&lines);
            log.write(lines).await;
        }
        if read == 0 {
            return;
        }
    }
}
