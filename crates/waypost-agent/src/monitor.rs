//! The log that `/v1/agent/monitor` streams: registrations, and at debug level every request. The
//! format is Consul's, so that its log viewers can read it.

use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::sync::mpsc::{Receiver, Sender};

/// The number of lines that a subscriber may lag behind before it misses lines.
const BUFFERED_LINES: usize = 512;

/// The level of a line, from least to most important.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum LogLevel {
    Debug,
    Info,
    Warn,
    Error,
}

/// Sends log lines to subscribers. Without subscribers no line is formatted.
#[derive(Debug, Default)]
pub(crate) struct Monitor {
    subscribers: Mutex<Vec<Subscriber>>,
}

#[derive(Debug)]
struct Subscriber {
    level: LogLevel,
    lines: Sender<Bytes>,
}

impl LogLevel {
    /// Parses Consul's names. The default, an empty name, is `info`.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "trace" | "debug" => Some(Self::Debug),
            "" | "info" => Some(Self::Info),
            "warn" => Some(Self::Warn),
            "err" | "error" => Some(Self::Error),
            _ => None,
        }
    }

    fn prefix(self) -> &'static str {
        match self {
            Self::Debug => "[DEBUG]",
            Self::Info => "[INFO] ",
            Self::Warn => "[WARN] ",
            Self::Error => "[ERROR]",
        }
    }
}

impl Monitor {
    /// Subscribes to all further lines of at least this level.
    pub(crate) fn subscribe(&self, level: LogLevel) -> Receiver<Bytes> {
        let (lines, receiver) = mpsc::channel(BUFFERED_LINES);
        self.subscribers().push(Subscriber { level, lines });
        receiver
    }

    pub(crate) fn request_received(&self, method: &http::Method, path: &str) {
        self.log(
            LogLevel::Debug,
            // Without the query, which may contain a token.
            format_args!("agent.http: Request: method={method} path={path}"),
        );
    }

    pub(crate) fn service_registered(&self, id: &str) {
        self.log(
            LogLevel::Info,
            format_args!("agent: Synced service: service={id}"),
        );
    }

    pub(crate) fn service_deregistered(&self, id: &str) {
        self.log(
            LogLevel::Info,
            format_args!("agent: Deregistered service: service={id}"),
        );
    }

    fn log(&self, level: LogLevel, message: impl Display) {
        let mut subscribers = self.subscribers();
        if subscribers.is_empty() {
            return;
        }
        let time = humantime::format_rfc3339_millis(SystemTime::now().max(UNIX_EPOCH));
        let line = Bytes::from(format!("{time} {} {message}\n", level.prefix()));
        subscribers.retain(|subscriber| {
            if level >= subscriber.level {
                // A subscriber whose buffer is full misses the line.
                let _ = subscriber.lines.try_send(line.clone());
            }
            !subscriber.lines.is_closed()
        });
    }

    fn subscribers(&self) -> MutexGuard<'_, Vec<Subscriber>> {
        self.subscribers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_have_the_names_that_consul_uses() {
        for (text, level) in [
            ("TRACE", Some(LogLevel::Debug)),
            ("debug", Some(LogLevel::Debug)),
            ("", Some(LogLevel::Info)),
            ("info", Some(LogLevel::Info)),
            ("Warn", Some(LogLevel::Warn)),
            ("err", Some(LogLevel::Error)),
            ("error", Some(LogLevel::Error)),
            ("loud", None),
        ] {
            assert_eq!(LogLevel::parse(text), level, "{text}");
        }
    }
}
