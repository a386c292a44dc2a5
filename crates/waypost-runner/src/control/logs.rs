//! `GET /api/logs`.

use std::time::SystemTime;

use axum::http::StatusCode;
use futures_util::Stream;
use serde::Deserialize;
use tokio::sync::broadcast::error::RecvError;

use super::error::ApiError;
use super::view::LineView;
use crate::log::{LogFilter, LogStore};
use crate::text::closest;

/// The query parameters.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct LogParams {
    service: String,
    level: String,
    q: String,
    since: String,
    n: Option<usize>,
    pub(super) follow: bool,
}

/// The number of lines that are sent by default.
const DEFAULT_LINES: usize = 200;

impl LogParams {
    pub(super) fn count(&self) -> usize {
        self.n.unwrap_or(DEFAULT_LINES)
    }

    /// `known` are the names of all services and instances.
    pub(super) fn filter(&self, known: &[String]) -> Result<LogFilter, ApiError> {
        let names: Vec<String> = self
            .service
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        if let Some(unknown) = names.iter().find(|name| !known.contains(name)) {
            let advice = match closest(unknown, known.iter().map(String::as_str)) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("the services are {}", known.join(", ")),
            };
            let detail = format!("there is no service `{unknown}`; {advice}");
            return Err(ApiError::new(StatusCode::NOT_FOUND, detail));
        }
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Ok(LogFilter {
            names,
            level: given(&self.level)
                .map(|level| level.parse().map_err(ApiError::bad_request))
                .transpose()?,
            text: given(&self.q),
            since: given(&self.since).map(|since| time(&since)).transpose()?,
        })
    }
}

/// Parses a time, or a duration before now.
fn time(text: &str) -> Result<SystemTime, ApiError> {
    let ago = humantime::parse_duration(text).ok();
    let ago = ago.and_then(|ago| SystemTime::now().checked_sub(ago));
    ago.or_else(|| humantime::parse_rfc3339_weak(text).ok())
        .ok_or_else(|| {
            ApiError::bad_request(format!(
                "since: {text:?} is neither a duration such as 10m nor a time such as \
                 2026-01-31T12:00:00Z"
            ))
        })
}

/// The lines after `last_seen`, or the last `count` lines if it is not the number of a line, followed by
/// new lines. An error is the number of lines that were skipped because the reader was too slow.
pub(super) fn follow(
    store: &LogStore,
    filter: LogFilter,
    last_seen: Option<u64>,
    count: usize,
) -> impl Stream<Item = Result<LineView, u64>> + use<> {
    // Subscribes first, so that no line is missed in between.
    let live = store.follow();
    // A client that was connected to an earlier run of the stack may have seen larger numbers.
    let last_seen = last_seen.filter(|seen| *seen <= store.last_id());
    let mut past = match last_seen {
        Some(_) => store.last(|line| filter.accepts(line), usize::MAX),
        None => store.last(|line| filter.accepts(line), count),
    };
    past.retain(|line| last_seen.is_none_or(|seen| line.id > seen));
    let shown = past.last().map(|line| line.id).or(last_seen).unwrap_or(0);
    let past = past.into_iter();
    futures_util::stream::unfold((past, live, filter, shown), async |state| {
        let (mut past, mut live, filter, shown) = state;
        if let Some(line) = past.next() {
            return Some((Ok(LineView::from(&line)), (past, live, filter, shown)));
        }
        loop {
            match live.recv().await {
                Ok(line) if line.id > shown && filter.accepts(&line) => {
                    return Some((Ok(LineView::from(&line)), (past, live, filter, shown)));
                }
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => {
                    return Some((Err(missed), (past, live, filter, shown)));
                }
                Err(RecvError::Closed) => return None,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::time::Duration;

    use futures_util::{FutureExt, StreamExt};
    use tokio::task::unconstrained;

    use super::*;
    use crate::log::store_tests::{add, store};
    use crate::log::{Level, Stream as Source};

    /// All lines that a client gets at once, and `None` for the number of skipped ones.
    fn texts(lines: &mut (impl Stream<Item = Result<LineView, u64>> + Unpin)) -> Vec<String> {
        let mut all = Vec::new();
        while let Some(Some(line)) = unconstrained(lines.next()).now_or_never() {
            all.push(line.map_or_else(|missed| format!("{missed} skipped"), |line| line.text));
        }
        all
    }

    #[tokio::test]
    async fn past_lines_are_followed_by_new_ones() {
        for (last_seen, count, expected) in [
            (None, 9, &["one", "two", "three"][..]),
            (None, 2, &["two", "three"]),
            (None, 0, &[]),
            (Some(0), 1, &["one", "two", "three"]),
            (Some(1), 0, &["two", "three"]),
            (Some(3), 9, &[]),
            // The number of a line of an earlier run.
            (Some(1000), 2, &["two", "three"]),
        ] {
            let store = store(10);
            for text in ["one", "two", "three"] {
                add(&store, "web", Source::Stdout, text).await;
            }
            let filter = LogFilter {
                names: vec!["web".to_owned()],
                ..LogFilter::default()
            };
            let mut lines = pin!(follow(&store, filter, last_seen, count));
            assert_eq!(texts(&mut lines), expected, "{last_seen:?} {count}");
            // The service of every line is `a`.
            add(&store, "other", Source::Stdout, "other").await;
            add(&store, "web", Source::Stdout, "new").await;
            assert_eq!(texts(&mut lines), ["new"], "{last_seen:?} {count}");
        }
    }

    #[tokio::test]
    async fn a_client_that_reads_too_slowly_is_told_how_many_lines_it_has_missed() {
        let store = store(1);
        let mut lines = pin!(follow(&store, LogFilter::default(), None, 0));
        for number in 1..=8192 + 3 {
            add(&store, "web", Source::Stdout, &number.to_string()).await;
        }
        let texts = texts(&mut lines);
        assert_eq!(texts[..2], ["3 skipped", "4"]);
        assert_eq!(texts.len(), 1 + 8192);
    }

    #[test]
    fn a_request_names_services_a_level_and_a_time() {
        let known = ["web".to_owned(), "orders".to_owned()];
        let params = |service: &str, level: &str, q: &str, since: &str| {
            let params = LogParams {
                service: service.to_owned(),
                level: level.to_owned(),
                q: q.to_owned(),
                since: since.to_owned(),
                ..LogParams::default()
            };
            params.filter(&known)
        };
        let all = params("", "", "", "").unwrap();
        assert!(all.names.is_empty() && all.level.is_none());
        assert!(all.text.is_none() && all.since.is_none());
        let some = params(" web,, orders ", "warn", "x", "2026-01-31T12:00:00Z").unwrap();
        assert_eq!(some.names, ["web", "orders"]);
        assert_eq!(
            (some.level, some.text.as_deref()),
            (Some(Level::Warn), Some("x"))
        );
        let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(1_769_860_800);
        assert_eq!(some.since, Some(noon));
        let since = params("", "", "", "1h").unwrap().since.unwrap();
        assert!(since.elapsed().unwrap() >= Duration::from_secs(3600));
        for (result, expected) in [
            (
                params("wbe", "", "", ""),
                "there is no service `wbe`; did you mean `web`?",
            ),
            (
                params("web,x", "", "", ""),
                "there is no service `x`; the services are web, orders",
            ),
            (params("", "loud", "", ""), "\"loud\" is not a level"),
            (
                params("", "", "", "soon"),
                "since: \"soon\" is neither a duration",
            ),
        ] {
            let detail = result.unwrap_err().detail;
            assert!(detail.starts_with(expected), "{detail}");
        }
        assert_eq!(LogParams::default().count(), DEFAULT_LINES);
    }
}
