//! What the processes write: framed into lines, kept for a while, and handed to one [`LogSink`].
//!
//! Each stream of each process has a reader of its own. A reader hands over what one read gave it
//! as one batch, and waits in line with the others before it may hand over the next: the queue
//! between readers and sink holds a single batch and is first come, first served. So a process that
//! writes without end gets its turn like everybody else and never more than that, and if the sink
//! is slow, it is the writer that is slowed down (its pipe fills), not its neighbours.

mod console;
mod frame;
mod keep;

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{mpsc, oneshot};

pub use console::Console;
pub(crate) use console::clean;
pub(crate) use keep::Kept;

use frame::Framer;

/// As much as is read, and handed over, at once.
const BATCH_BYTES: usize = 16 * 1024;

/// Where the lines of all processes go, in the order in which they came.
///
/// It is called on a thread of its own and may block. After an error it isn't called again; the
/// processes run on.
pub trait LogSink: Send + 'static {
    /// The names of all instances, at first and whenever one is added.
    fn names(&mut self, names: &[String]) {
        let _ = names;
    }

    /// Takes some lines of one instance.
    ///
    /// # Errors
    /// The sink can't take any more, as when a terminal is gone.
    fn write(&mut self, lines: &[Line]) -> io::Result<()>;
}

/// One line of one instance.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Line {
    /// The instance that wrote it, such as `ai-models-2`.
    pub instance: Arc<str>,
    /// Where it wrote it.
    pub stream: Stream,
    /// When it was read.
    pub at: SystemTime,
    /// The text without its line end. Bytes that are not UTF-8 are replaced by `U+FFFD`; colours and
    /// other control characters are as the process wrote them.
    pub text: Arc<str>,
    /// The line was longer than 64 KiB; `text` is its beginning.
    pub cut: bool,
}

/// Where a line comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
    /// The runner, telling what has become of the instance.
    Runner,
}

/// The way to the sink, which ends when all clones of this are dropped.
#[derive(Clone, Debug)]
pub(crate) struct Output(mpsc::Sender<Message>);

enum Message {
    Names(Vec<String>),
    Lines(Vec<Line>),
    Flush(oneshot::Sender<()>),
}

impl Output {
    /// Starts the sink's thread.
    pub(crate) fn start(mut sink: Box<dyn LogSink>, names: Vec<String>) -> io::Result<Self> {
        let (sender, mut messages) = mpsc::channel(1);
        let drain = move || {
            sink.names(&names);
            let mut open = true;
            while let Some(message) = messages.blocking_recv() {
                match message {
                    Message::Names(names) => sink.names(&names),
                    Message::Lines(lines) => open = open && sink.write(&lines).is_ok(),
                    Message::Flush(done) => drop(done.send(())),
                }
            }
        };
        std::thread::Builder::new()
            .name("stack-logs".to_owned())
            .spawn(drain)?;
        Ok(Self(sender))
    }

    pub(crate) async fn names(&self, names: Vec<String>) {
        self.send(Message::Names(names)).await;
    }

    pub(crate) async fn lines(&self, lines: Vec<Line>) {
        self.send(Message::Lines(lines)).await;
    }

    /// Waits until the sink has taken everything that was handed over before.
    pub(crate) async fn flush(&self) {
        let (done, flushed) = oneshot::channel();
        self.send(Message::Flush(done)).await;
        let _ = flushed.await;
    }

    async fn send(&self, message: Message) {
        // Fails only if the sink has panicked. The lines are kept all the same.
        let _ = self.0.send(message).await;
    }
}

/// Reads one stream of one process to its end.
pub(crate) async fn collect(
    mut reader: impl AsyncRead + Unpin,
    instance: Arc<str>,
    stream: Stream,
    kept: Arc<Kept>,
    output: Output,
) {
    let mut framer = Framer::default();
    let mut buffer = vec![0; BATCH_BYTES];
    loop {
        // An error ends the stream as its end does: there is nobody to ask again.
        let read = reader.read(&mut buffer).await.unwrap_or(0);
        let at = SystemTime::now();
        let mut lines = Vec::new();
        let mut push = |bytes: &[u8], cut| {
            let text = String::from_utf8_lossy(bytes).into();
            lines.push(Line {
                instance: instance.clone(),
                stream,
                at,
                text,
                cut,
            });
        };
        match read {
            0 => framer.end(&mut push),
            _ => framer.push(&buffer[..read], &mut push),
        }
        if !lines.is_empty() {
            kept.extend(&lines);
            output.lines(lines).await;
        }
        if read == 0 {
            return;
        }
    }
}
