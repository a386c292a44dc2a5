//! Reads one output stream of one program.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::line::{Line, Stream};
use super::splitter::LineSplitter;
use super::store::LogStore;
use crate::probe::LogMatch;

/// How many bytes are read, and sent to the sink as one batch, at once.
const BATCH_BYTES: usize = 16 * 1024;

/// An output stream of an instance.
pub(crate) struct OutputStream {
    pub(crate) service: Arc<str>,
    pub(crate) instance: Arc<str>,
    pub(crate) stream: Stream,
    /// The readiness check that looks for a line, if there is one.
    pub(crate) wanted: Option<LogMatch>,
}

impl OutputStream {
    /// Reads the stream to its end.
    pub(crate) async fn read(self, mut reader: impl AsyncRead + Unpin, log: LogStore) {
        let mut splitter = LineSplitter::default();
        let mut buffer = vec![0; BATCH_BYTES];
        loop {
            // A pipe that fails once keeps failing, so an error counts as the end of the stream.
            let read = reader.read(&mut buffer).await.unwrap_or(0);
            let at = SystemTime::now();
            let mut lines = Vec::new();
            let mut push = |bytes: &[u8], truncated| {
                let text = String::from_utf8_lossy(bytes);
                if let Some(wanted) = &self.wanted {
                    wanted.line(&text);
                }
                lines.push(Line {
                    id: 0,
                    service: self.service.clone(),
                    instance: self.instance.clone(),
                    stream: self.stream,
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
            log.add(lines).await;
            if read == 0 {
                return;
            }
        }
    }
}
