//! What the library writes to the log, taken by a test.

use std::io::Write;
use std::sync::{Arc, Mutex};

use tracing::subscriber::NoSubscriber;
use tracing_subscriber::fmt::MakeWriter;

/// All lines of one thread's log, at the finest level, other crates' too.
#[derive(Clone, Default)]
pub(crate) struct Logs {
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl Logs {
    /// Takes the log of this thread as long as the guard lives. A test on Tokio's current-thread
    /// runtime has no other.
    pub(crate) fn take() -> (Self, tracing::subscriber::DefaultGuard) {
        // Tracing keeps in mind which lines nobody wants. While there is but one subscriber, it asks
        // only that of the thread that comes to a line first, which may be another test's: it has
        // none. With two it asks both, whichever thread it is. An error means that it is set.
        let _ = tracing::subscriber::set_global_default(NoSubscriber::default());
        let logs = Self::default();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::TRACE)
            .with_ansi(false)
            .with_writer(logs.clone())
            .finish();
        (logs, tracing::subscriber::set_default(subscriber))
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.bytes.lock().unwrap().clone()).unwrap()
    }

    /// The lines with all of these words.
    pub(crate) fn lines(&self, words: &[&str]) -> Vec<String> {
        let text = self.text();
        let lines = text.lines();
        let lines = lines.filter(|line| words.iter().all(|word| line.contains(word)));
        lines.map(str::to_owned).collect()
    }
}

impl Write for Logs {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.bytes.lock().unwrap().write(bytes)
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
