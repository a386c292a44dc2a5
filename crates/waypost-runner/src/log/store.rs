//! The last lines of every instance, numbered in the order in which they were read.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tokio::sync::broadcast;

use super::level::Level;
use super::line::{Line, Stream};
use super::recent::RecentLines;
use super::writer::LogWriter;

/// How many lines a follower may fall behind before it misses some.
const FOLLOW_CAPACITY: usize = 8192;

/// Keeps the last lines, and passes every line on to the sink and to followers. Clones refer to the same
/// store.
#[derive(Clone, Debug)]
pub(crate) struct LogStore {
    kept: Arc<Mutex<Kept>>,
    followers: broadcast::Sender<Line>,
    writer: LogWriter,
}

#[derive(Debug)]
struct Kept {
    next_id: u64,
    max_lines: usize,
    instances: BTreeMap<Arc<str>, RecentLines>,
}

/// Selects lines. By default, all are selected.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogFilter {
    /// Names of services or instances; empty for all.
    pub(crate) names: Vec<String>,
    /// This level or a more severe one. Lines without a level are left out.
    pub(crate) level: Option<Level>,
    /// A text that the line contains, ignoring case.
    pub(crate) text: Option<String>,
    pub(crate) since: Option<SystemTime>,
}

impl LogFilter {
    pub(crate) fn accepts(&self, line: &Line) -> bool {
        let is_named = |name: &String| **name == *line.service || **name == *line.instance;
        let contains = |wanted: &String| {
            let wanted = wanted.to_lowercase();
            line.text.to_lowercase().contains(&wanted)
        };
        (self.names.is_empty() || self.names.iter().any(is_named))
            && self.since.is_none_or(|since| line.at >= since)
            && self.text.as_ref().is_none_or(contains)
            && self
                .level
                .is_none_or(|wanted| line.level().is_some_and(|level| level <= wanted))
    }
}

impl LogStore {
    /// Keeps up to `max_lines` of each instance.
    pub(crate) fn new(writer: LogWriter, max_lines: usize) -> Self {
        Self {
            kept: Arc::new(Mutex::new(Kept {
                next_id: 1,
                max_lines,
                instances: BTreeMap::new(),
            })),
            followers: broadcast::Sender::new(FOLLOW_CAPACITY),
            writer,
        }
    }

    pub(crate) fn writer(&self) -> &LogWriter {
        &self.writer
    }

    /// Adds lines of one instance. Waits if the sink is slow.
    pub(crate) async fn add(&self, mut lines: Vec<Line>) {
        let Some(instance) = lines.first().map(|line| line.instance.clone()) else {
            return;
        };
        {
            let mut kept = self.lock();
            for line in &mut lines {
                line.id = kept.next_id;
                kept.next_id += 1;
            }
            let max_lines = kept.max_lines;
            let recent = kept
                .instances
                .entry(instance)
                .or_insert_with(|| RecentLines::new(max_lines));
            recent.extend(&lines);
            if self.followers.receiver_count() > 0 {
                for line in &lines {
                    // Sent while the store is locked, so that followers get lines in order.
                    let _ = self.followers.send(line.clone());
                }
            }
        }
        self.writer.write(lines).await;
    }

    /// The last lines written by an instance itself, at most `count`, oldest first.
    pub(crate) fn last_of(&self, instance: &str, count: usize) -> Vec<Line> {
        let kept = self.lock();
        let Some(recent) = kept.instances.get(instance) else {
            return Vec::new();
        };
        let own = |line: &&Line| line.stream != Stream::Runner;
        let mut lines: Vec<Line> = recent
            .newest_first()
            .filter(own)
            .take(count)
            .cloned()
            .collect();
        lines.reverse();
        lines
    }

    /// The last lines of all instances that the filter accepts, at most `count`, oldest first.
    pub(crate) fn last(&self, accepts: impl Fn(&Line) -> bool, count: usize) -> Vec<Line> {
        let kept = self.lock();
        let mut lines: Vec<Line> = kept
            .instances
            .values()
            .flat_map(|recent| {
                let accepted = recent.newest_first().filter(|line| accepts(line));
                accepted.take(count)
            })
            .cloned()
            .collect();
        drop(kept);
        lines.sort_unstable_by_key(|line| line.id);
        lines.drain(..lines.len().saturating_sub(count));
        lines
    }

    /// Subscribes to all new lines.
    pub(crate) fn follow(&self) -> broadcast::Receiver<Line> {
        self.followers.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
