//! The last lines of one instance.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::line::Line;

/// The maximum number of bytes that is kept for one instance. Long lines reach it before the limit of
/// lines.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// A bounded buffer of lines that drops the oldest ones.
#[derive(Debug)]
pub(crate) struct RecentLines {
    buffer: Mutex<Buffer>,
    max_lines: usize,
}

#[derive(Debug, Default)]
struct Buffer {
    lines: VecDeque<Line>,
    bytes: usize,
}

impl RecentLines {
    pub(crate) fn new(max_lines: usize) -> Self {
        Self {
            buffer: Mutex::default(),
            max_lines,
        }
    }

    pub(crate) fn extend(&self, lines: &[Line]) {
        let mut buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        for line in lines {
            buffer.bytes += line.text.len();
            buffer.lines.push_back(line.clone());
            while buffer.lines.len() > self.max_lines || buffer.bytes > MAX_BYTES {
                let Some(oldest) = buffer.lines.pop_front() else {
                    break;
                };
                buffer.bytes -= oldest.text.len();
            }
        }
    }

    /// The last `count` lines, oldest first.
    pub(crate) fn last(&self, count: usize) -> Vec<Line> {
        let buffer = self.buffer.lock().unwrap_or_else(PoisonError::into_inner);
        let skip = buffer.lines.len().saturating_sub(count);
        buffer.lines.iter().skip(skip).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::line::Stream;
    use super::*;

    fn line(text: &str) -> Line {
        Line {
            instance: "a".into(),
            stream: Stream::Stdout,
            at: SystemTime::UNIX_EPOCH,
            text: text.into(),
            truncated: false,
        }
    }

    #[test]
    fn the_oldest_lines_are_dropped_first() {
        let recent = RecentLines::new(3);
        recent.extend(&["1", "2", "3", "4"].map(line));
        let texts = |count| -> Vec<String> {
            recent
                .last(count)
                .iter()
                .map(|line| line.text.to_string())
                .collect()
        };
        assert_eq!(texts(2), ["3", "4"]);
        assert_eq!(texts(10), ["2", "3", "4"]);
    }

    #[test]
    fn the_total_size_is_limited() {
        let recent = RecentLines::new(1_000_000);
        let long = line(&"x".repeat(64 * 1024));
        for _ in 0..1000 {
            recent.extend(std::slice::from_ref(&long));
        }
        assert_eq!(recent.last(1000).len(), MAX_BYTES / (64 * 1024));
    }
}
