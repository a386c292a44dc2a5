//! A line of output, and the trait of its destination.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use super::level::Level;

/// The destination of all output, in the order in which it was read.
///
/// A sink runs on its own thread and may block. After its first error it is not called again; the
/// programs keep running.
///
/// ```
/// use std::fs::File;
/// use std::io::{self, Write};
/// use waypost_runner::{Line, LogSink};
///
/// struct LogFile(File);
///
/// impl LogSink for LogFile {
///     fn write(&mut self, lines: &[Line]) -> io::Result<()> {
///         for line in lines {
///             writeln!(self.0, "{} {}", line.instance, line.text)?;
///         }
///         Ok(())
///     }
/// }
/// ```
pub trait LogSink: Send + 'static {
    /// Takes the names of all instances: before the first line, and again whenever one is added.
    /// Does nothing by default.
    fn set_instances(&mut self, names: &[String]) {
        let _ = names;
    }

    /// Takes some lines of one instance.
    ///
    /// # Errors
    /// The sink cannot take any more lines, for example because the terminal was closed.
    fn write(&mut self, lines: &[Line]) -> io::Result<()>;
}

/// One line of output of one instance.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Line {
    /// Its number in the order in which all lines of the stack were read, from 1.
    pub id: u64,
    /// The service, such as `ai-models`.
    pub service: Arc<str>,
    /// The instance, such as `ai-models-2`.
    pub instance: Arc<str>,
    /// The source of the line.
    pub stream: Stream,
    /// When it was read.
    pub at: SystemTime,
    /// The text without its line end. Bytes that are not UTF-8 are replaced by `U+FFFD`. Colours and
    /// other control characters are kept.
    pub text: Arc<str>,
    /// Whether the line was longer than 64 KiB, so that `text` is only its beginning.
    pub truncated: bool,
}

impl Line {
    /// The level that is named in the text, if there is one.
    pub fn level(&self) -> Option<Level> {
        match self.stream {
            Stream::Stdout | Stream::Stderr => Level::of(&self.text),
            Stream::Runner => None,
        }
    }

    #[cfg(test)]
    pub(crate) fn sample(text: &str) -> Self {
        Self {
            id: 0,
            service: "a".into(),
            instance: "a".into(),
            stream: Stream::Stdout,
            at: SystemTime::UNIX_EPOCH,
            text: text.into(),
            truncated: false,
        }
    }
}

/// The source of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output of the program.
    Stdout,
    /// Standard error of the program.
    Stderr,
    /// The runner, which reports each change of the instance's state.
    Runner,
}
