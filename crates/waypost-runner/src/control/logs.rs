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

/// The lines after `last_seen`, or the last `count` lines, followed by new lines. An error is the number
/// of lines that were skipped because the reader was too slow.
pub(super) fn follow(
    store: &LogStore,
    filter: LogFilter,
    last_seen: Option<u64>,
    count: usize,
) -> impl Stream<Item = Result<LineView, u64>> + use<> {
    // Subscribes first, so that no line is missed in between.
    let live = store.follow();
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
