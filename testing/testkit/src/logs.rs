//! Captures log lines in tests.

use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::subscriber::NoSubscriber;
use tracing_subscriber::fmt::MakeWriter;

/// All log lines of one thread, at level TRACE, including those of other crates.
#[derive(Clone, Default)]
pub struct Logs {
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Logs {
    /// Captures the log of this thread until the guard is dropped. All tasks of a test on Tokio's
    /// current-thread runtime run on this thread.
    pub fn take() -> (Self, tracing::subscriber::DefaultGuard) {
        // Tracing caches for each log statement whether any subscriber is interested. With a single
        // subscriber it checks only that of the thread that reaches the statement first, which may be
        // the thread of another test without a subscriber. With a second, global subscriber it checks
        // all of them. An error means that it was already set.
        let _ = tracing::subscriber::set_global_default(NoSubscriber::default());
        let logs = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(logs.clone())
            .finish();
        (logs, tracing::subscriber::set_default(subscriber))
    }

    /// Everything that was logged so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes()).into_owned()
    }

    /// The lines that contain all of these texts.
    pub fn lines(&self, words: &[&str]) -> Vec<String> {
        let text = self.text();
        let lines = text.lines();
        let lines = lines.filter(|line| words.iter().all(|word| line.contains(word)));
        lines.map(str::to_owned).collect()
    }

    fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Logs {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}
