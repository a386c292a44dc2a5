use std::{sync::Arc, time::Duration};

use futures_util::{
    StreamExt,
    stream::{self, BoxStream},
};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};

use super::http::{Http, Reply};
use crate::error::{ProviderError, ProviderErrorKind};

/// What to read again and again.
pub(super) struct Blocking {
    pub(super) http: Arc<Http>,
    pub(super) path: String,
    pub(super) wait: Duration,
}

/// Reads a path by blocking queries, by the rules of Consul's documentation: an index that goes
/// backwards or is unusable means to begin again without one. Ends with the first failure.
pub(super) fn blocking_reads<T: DeserializeOwned + Send + 'static>(
    what: Blocking,
) -> BoxStream<'static, Result<T, ProviderError>> {
    let start = Position {
        what,
        index: None,
        pace: Pace::new(),
    };
    // Answers without news are passed on too: they confirm that what is known still holds.
    stream::try_unfold(start, |mut position| async move {
        let reply = position.next_reply().await?;
        let answer =
            serde_json::from_slice(&reply.body).map_err(|cause| position.unreadable(&cause))?;
        Ok(Some((answer, position)))
    })
    .boxed()
}

struct Position {
    what: Blocking,
    /// The index of the last answer; `None` for a read that doesn't wait.
    index: Option<u64>,
    pace: Pace,
}

impl Position {
    async fn next_reply(&mut self) -> Result<Reply, ProviderError> {
        self.pace.wait().await;
        let block = self.index.map(|index| (index, self.what.wait));
        let reply = self.what.http.read(&self.what.path, block).await?;
        self.index = next_index(self.index, &reply);
        Ok(reply)
    }

    fn unreadable(&self, cause: &serde_json::Error) -> ProviderError {
        let message = format!("{} answers what can't be read: {cause}", self.what.path);
        self.what.http.error(ProviderErrorKind::BadAnswer, message)
    }
}

/// The index to wait on next. A server never goes back unless it was restored or replaced; then,
/// and where there is no usable index, the next read must not wait.
fn next_index(before: Option<u64>, reply: &Reply) -> Option<u64> {
    let header = reply.headers.get("x-consul-index")?;
    let index: u64 = header.to_str().ok()?.parse().ok()?;
    match before {
        Some(before) if index < before => None,
        // 0 would make the next query return at once, for ever.
        _ => Some(index.max(1)),
    }
}

/// A token bucket against hot loops: many changes in a row pass without delay, endless ones, such
/// as from a server without blocking queries, are read at a steady pace.
struct Pace {
    tokens: f64,
    at: Instant,
}

impl Pace {
    const BURST: f64 = 50.0;
    const PER_SECOND: f64 = 10.0;

    fn new() -> Self {
        Self {
            tokens: Self::BURST,
            at: Instant::now(),
        }
    }

    async fn wait(&mut self) {
        let earned = self.at.elapsed().as_secs_f64() * Self::PER_SECOND;
        self.tokens = (self.tokens + earned).min(Self::BURST);
        self.at = Instant::now();
        if self.tokens < 1.0 {
            let missing = (1.0 - self.tokens) / Self::PER_SECOND;
            sleep(Duration::from_secs_f64(missing)).await;
        }
        self.tokens -= 1.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_passes_and_endless_reads_are_slowed() {
        let mut pace = Pace::new();
        let started = Instant::now();
        for _ in 0..50 {
            pace.wait().await;
        }
        assert_eq!(started.elapsed(), Duration::ZERO);
        for _ in 0..100 {
            pace.wait().await;
        }
        let took = started.elapsed().as_secs_f64();
        assert!((9.5..10.5).contains(&took), "{took}");
    }

    #[test]
    fn an_index_that_goes_back_or_makes_no_sense_begins_again() {
        let reply = |index: Option<&str>| {
            let mut headers = reqwest::header::HeaderMap::new();
            if let Some(index) = index {
                headers.insert("x-consul-index", index.parse().unwrap());
            }
            Reply {
                headers,
                body: vec![],
            }
        };
        for (before, header, next) in [
            (None, Some("7"), Some(7)),
            (Some(7), Some("7"), Some(7)),
            (Some(7), Some("8"), Some(8)),
            (Some(7), Some("6"), None),
            (None, Some("0"), Some(1)),
            (Some(7), None, None),
            (Some(7), Some("many"), None),
        ] {
            assert_eq!(
                next_index(before, &reply(header)),
                next,
                "{before:?} {header:?}"
            );
        }
    }
}
