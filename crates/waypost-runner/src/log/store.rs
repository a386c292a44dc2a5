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

    /// The number of the newest line; 0 if there is none.
    pub(crate) fn last_id(&self) -> u64 {
        self.lock().next_id - 1
    }

    /// Subscribes to all new lines.
    pub(crate) fn follow(&self) -> broadcast::Receiver<Line> {
        self.followers.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::io;
    use std::time::Duration;

    use super::super::line::LogSink;
    use super::*;

    struct Nowhere;

    impl LogSink for Nowhere {
        fn write(&mut self, _: &[Line]) -> io::Result<()> {
            Ok(())
        }
    }

    /// A store that keeps this many lines of each instance and has no sink.
    pub(crate) fn store(max_lines: usize) -> LogStore {
        LogStore::new(LogWriter::start(Nowhere, Vec::new()).unwrap(), max_lines)
    }

    /// Adds a line of an instance.
    pub(crate) async fn add(store: &LogStore, instance: &str, stream: Stream, text: &str) {
        let line = Line {
            instance: instance.into(),
            stream,
            ..Line::sample(text)
        };
        store.add(vec![line]).await;
    }

    fn texts(lines: &[Line]) -> Vec<&str> {
        lines.iter().map(|line| &*line.text).collect()
    }

    #[tokio::test]
    async fn the_last_lines_of_all_instances_are_in_the_order_in_which_they_were_read() {
        let store = store(2);
        assert_eq!(store.last_id(), 0);
        for (instance, text) in [("b", "1"), ("a", "2"), ("b", "3"), ("b", "4"), ("a", "5")] {
            add(&store, instance, Stream::Stdout, text).await;
        }
        add(&store, "a", Stream::Runner, "6").await;
        store.add(Vec::new()).await;
        assert_eq!(store.last_id(), 6);
        // Two are kept of each.
        assert_eq!(texts(&store.last(|_| true, 9)), ["3", "4", "5", "6"]);
        assert_eq!(texts(&store.last(|_| true, 3)), ["4", "5", "6"]);
        assert_eq!(texts(&store.last(|line| &*line.instance == "b", 1)), ["4"]);
        assert_eq!(texts(&store.last(|_| true, 0)), [""; 0]);
        // Without those of the runner.
        assert_eq!(texts(&store.last_of("a", 9)), ["5"]);
        assert_eq!(texts(&store.last_of("b", 1)), ["4"]);
        assert_eq!(texts(&store.last_of("c", 9)), [""; 0]);
        let ids: Vec<_> = store.last(|_| true, 9).iter().map(|line| line.id).collect();
        assert_eq!(ids, [3, 4, 5, 6]);
    }

    #[test]
    fn a_filter_selects_by_name_level_text_and_time() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let line = Line {
            service: "web".into(),
            instance: "web-2".into(),
            at: at(10),
            ..Line::sample("WARN Slow answer")
        };
        let all = LogFilter::default;
        let named = |name: &str| LogFilter {
            names: vec!["other".to_owned(), name.to_owned()],
            ..all()
        };
        let level = |level| LogFilter {
            level: Some(level),
            ..all()
        };
        let text = |text: &str| LogFilter {
            text: Some(text.to_owned()),
            ..all()
        };
        let since = |seconds| LogFilter {
            since: Some(at(seconds)),
            ..all()
        };
        for (filter, expected) in [
            (all(), true),
            (named("web"), true),
            (named("web-2"), true),
            (named("web-1"), false),
            (level(Level::Info), true),
            (level(Level::Warn), true),
            (level(Level::Error), false),
            (text("sLOW"), true),
            (text("fast"), false),
            (since(10), true),
            (since(11), false),
        ] {
            assert_eq!(filter.accepts(&line), expected, "{filter:?}");
        }
        let plain = Line::sample("no level");
        assert!(all().accepts(&plain));
        assert!(!level(Level::Trace).accepts(&plain));
    }
}
