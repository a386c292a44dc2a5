//! The agent's log, for whoever listens to `/v1/agent/monitor`: what is registered, and at the level
//! of debugging every request.

use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::mpsc::{self, Receiver, Sender};

/// A listener that is further behind than this misses lines.
const BACKLOG: usize = 512;

/// How much a line matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    Debug,
    Info,
    Warn,
    Error,
}

/// Hands lines to those who listen; without any it costs nothing.
#[derive(Debug, Default)]
pub(crate) struct Monitor {
    listeners: Mutex<Vec<(Level, Sender<Bytes>)>>,
}

impl Level {
    /// By Consul's names; the empty one is the default.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "trace" | "debug" => Some(Self::Debug),
            "" | "info" => Some(Self::Info),
            "warn" => Some(Self::Warn),
            "err" | "error" => Some(Self::Error),
            _ => None,
        }
    }

    fn shown(self) -> &'static str {
        match self {
            Self::Debug => "[DEBUG]",
            Self::Info => "[INFO] ",
            Self::Warn => "[WARN] ",
            Self::Error => "[ERROR]",
        }
    }
}

impl Monitor {
    /// All lines from now on that matter at least as much.
    pub(crate) fn listen(&self, level: Level) -> Receiver<Bytes> {
        let (sender, receiver) = mpsc::channel(BACKLOG);
        self.listeners().push((level, sender));
        receiver
    }

    /// Writes a line, which is put together only if somebody listens.
    pub(crate) fn say(&self, level: Level, line: impl Display) {
        let mut listeners = self.listeners();
        if listeners.is_empty() {
            return;
        }
        let time = humantime::format_rfc3339_millis(SystemTime::now().max(UNIX_EPOCH));
        let line = Bytes::from(format!("{time} {} {line}\n", level.shown()));
        listeners.retain(|(least, sender)| {
            if level >= *least {
                // One that is too slow misses it.
                let _ = sender.try_send(line.clone());
            }
            !sender.is_closed()
        });
    }

    fn listeners(&self) -> MutexGuard<'_, Vec<(Level, Sender<Bytes>)>> {
        self.listeners
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
