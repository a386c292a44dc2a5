//! The last lines of an instance.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use super::Line;

/// Long lines count for more: no instance keeps more than this, however few lines that is.
const MOST_BYTES: usize = 4 * 1024 * 1024;

#[derive(Debug)]
pub(crate) struct Kept {
    lines: Mutex<Lines>,
    most: usize,
}

#[derive(Debug, Default)]
struct Lines {
    queue: VecDeque<Line>,
    bytes: usize,
}

impl Kept {
    /// Keeps at most `most` lines.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            lines: Mutex::default(),
            most,
        }
    }

    pub(crate) fn extend(&self, lines: &[Line]) {
        let mut kept = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        for line in lines {
            kept.bytes += line.text.len();
            kept.queue.push_back(line.clone());
            while kept.queue.len() > self.most || kept.bytes > MOST_BYTES {
                let Some(oldest) = kept.queue.pop_front() else {
                    break;
                };
                kept.bytes -= oldest.text.len();
            }
        }
    }

    /// The last `count` lines, oldest first.
    pub(crate) fn last(&self, count: usize) -> Vec<Line> {
        let kept = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let skip = kept.queue.len().saturating_sub(count);
        kept.queue.iter().skip(skip).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::super::Stream;
    use super::*;

    fn line(text: &str) -> Line {
        let at = SystemTime::UNIX_EPOCH;
        Line {
            instance: "a".into(),
            stream: Stream::Stdout,
            at,
            text: text.into(),
            cut: false,
        }
    }

    #[test]
    fn the_oldest_lines_go_first() {
        let kept = Kept::new(3);
        kept.extend(&["1", "2", "3", "4"].map(line));
        let texts = |count| -> Vec<String> {
            kept.last(count)
                .iter()
                .map(|line| line.text.to_string())
                .collect()
        };
        assert_eq!(texts(2), ["3", "4"]);
        assert_eq!(texts(10), ["2", "3", "4"]);
    }

    #[test]
    fn long_lines_count_for_more() {
        let kept = Kept::new(1_000_000);
        let long = line(&"x".repeat(64 * 1024));
        for _ in 0..1000 {
            kept.extend(std::slice::from_ref(&long));
        }
        assert_eq!(kept.last(1000).len(), MOST_BYTES / (64 * 1024));
    }
}
