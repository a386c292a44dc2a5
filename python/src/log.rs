//! Passes the library's log lines to Python's `logging`.
//!
//! This is done on a separate thread, because a line may be logged while the library holds a lock, and
//! `logging` needs the GIL.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::thread::{self, JoinHandle};

use arc_swap::ArcSwapOption;
use pyo3::prelude::*;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry;

/// Lines that wait for the thread; further ones are dropped.
const CAPACITY: usize = 1024;

/// The name of the logger.
const LOGGER: &str = "waypost";

/// The channel to the thread. It is not behind a lock: threads log without the GIL, so one of them might
/// hold the lock while another forks.
static LINES: ArcSwapOption<SyncSender<Line>> = ArcSwapOption::const_empty();

static THREAD: Mutex<Option<JoinHandle<()>>> = Mutex::new(None);

/// Whether lines of level DEBUG are passed on.
static DEBUG: AtomicBool = AtomicBool::new(false);

struct Line {
    level: Level,
    text: String,
}

fn log_thread() -> MutexGuard<'static, Option<JoinHandle<()>>> {
    THREAD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Starts the thread.
pub(crate) fn start() {
    static SUBSCRIBE: Once = Once::new();
    SUBSCRIBE.call_once(|| {
        let subscriber = registry().with(Forward.with_filter(LevelFilter::DEBUG));
        // This module has its own copy of `tracing`, so no other subscriber can be set.
        let _ = tracing::subscriber::set_global_default(subscriber);
    });
    let (lines, received) = sync_channel(CAPACITY);
    let thread = thread::Builder::new().name("waypost-log".to_owned());
    if let Ok(thread) = thread.spawn(move || pass_on(&received)) {
        LINES.store(Some(Arc::new(lines)));
        *log_thread() = Some(thread);
    }
}

/// Waits until all lines are logged, and ends the thread.
pub(crate) fn stop() {
    // The thread ends when there is no sender left.
    LINES.store(None);
    let thread = log_thread().take();
    if let Some(thread) = thread {
        // A panic on that thread was already reported.
        let _ = thread.join();
    }
}

/// Drops the channel to the thread, which doesn't exist in this process.
pub(crate) fn forget() {
    std::mem::forget(LINES.swap(None));
    std::mem::forget(log_thread().take());
}

/// Reads whether the logger is enabled for DEBUG.
pub(crate) fn read_level(py: Python<'_>) -> PyResult<()> {
    let logger = py.import("logging")?.call_method1("getLogger", (LOGGER,))?;
    let debug = logger.call_method1("isEnabledFor", (10,))?.is_truthy()?;
    DEBUG.store(debug, Ordering::Relaxed);
    Ok(())
}

fn pass_on(lines: &Receiver<Line>) {
    for line in lines {
        let level = match line.level {
            Level::ERROR => 40,
            Level::WARN => 30,
            Level::INFO => 20,
            _ => 10,
        };
        Python::try_attach(|py| {
            let log = || -> PyResult<()> {
                let logger = py.import("logging")?.call_method1("getLogger", (LOGGER,))?;
                logger.call_method1("log", (level, "%s", line.text))?;
                Ok(())
            };
            // A handler of the application has failed, so this can't be logged either.
            let _ = log();
        });
    }
}

/// Sends lines to the thread.
struct Forward;

impl<S: Subscriber> Layer<S> for Forward {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let level = *metadata.level();
        let is_ours =
            metadata.target().starts_with("waypost") || metadata.target().starts_with("_waypost");
        let wanted = match level {
            Level::ERROR | Level::WARN => true,
            Level::INFO => is_ours,
            _ => is_ours && DEBUG.load(Ordering::Relaxed),
        };
        if !wanted {
            return;
        }
        let mut text = Text::default();
        event.record(&mut text);
        let text = text.message + &text.fields;
        if let Some(lines) = &*LINES.load() {
            // If the thread doesn't keep up, lines are lost rather than requests delayed.
            let _ = lines.try_send(Line { level, text });
        }
    }
}

/// The message, and the fields as `name=value`.
#[derive(Default)]
struct Text {
    message: String,
    fields: String,
}

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string can't fail.
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, " {}={value:?}", field.name())
        };
    }
}
