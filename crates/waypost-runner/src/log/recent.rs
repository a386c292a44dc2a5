//! The last lines of one instance.

use std::collections::VecDeque;

use super::line::Line;

/// The maximum number of bytes that is kept for one instance. Long lines reach it before the limit of
/// lines.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// A bounded buffer of lines that drops the oldest ones.
#[derive(Debug)]
pub(crate) struct RecentLines {
    lines: VecDeque<Line>,
    bytes: usize,
    max_lines: usize,
}

impl RecentLines {
    pub(crate) fn new(max_lines: usize) -> Self {
        Self {
            lines: VecDeque::new(),
            bytes: 0,
            max_lines,
        }
    }

    pub(crate) fn extend(&mut self, lines: &[Line]) {
        for line in lines {
            self.bytes += line.text.len();
            self.lines.push_back(line.clone());
            while self.lines.len() > self.max_lines || self.bytes > MAX_BYTES {
                let Some(oldest) = self.lines.pop_front() else {
                    break;
                };
                self.bytes -= oldest.text.len();
            }
        }
    }

    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &Line> {
        self.lines.iter().rev()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_lines_are_dropped_first() {
        let mut recent = RecentLines::new(3);
        recent.extend(&["1", "2", "3", "4"].map(Line::sample));
        let texts: Vec<_> = recent.newest_first().map(|line| &*line.text).collect();
        assert_eq!(texts, ["4", "3", "2"]);
    }

    #[test]
    fn the_total_size_is_limited() {
        let mut recent = RecentLines::new(1_000_000);
        let long = Line::sample(&"x".repeat(64 * 1024));
        for _ in 0..1000 {
            recent.extend(std::slice::from_ref(&long));
        }
        assert_eq!(recent.newest_first().count(), MAX_BYTES / (64 * 1024));
    }
}
