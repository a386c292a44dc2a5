use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep};
use waypost_core::{ProviderError, ProviderErrorKind};

use super::agents::Agents;
use super::http::{Http, Reply};
use super::permission::Need;

/// What to read again and again.
pub(super) struct Blocking {
    pub(super) agents: Arc<Agents>,
    pub(super) path: String,
    pub(super) query: Vec<(String, String)>,
    pub(super) wait: Duration,
    /// What one must be allowed to see for an empty answer to mean anything.
    pub(super) needs: Vec<Need>,
}

/// What an answer becomes.
pub(super) trait Content: Clone + Send + 'static {
    type Wire: DeserializeOwned;

    fn of(&self, wire: Self::Wire) -> Self;
    fn is_empty(&self) -> bool;
}

/// Reads a path by blocking queries, by the rules of Consul's documentation: an index that goes
/// backwards or is unusable means to begin again without one. Ends with the first failure.
///
/// Answers without news are passed on too: they confirm that what is known still holds.
pub(super) fn blocking_reads<C: Content>(
    what: Blocking,
    empty: C,
) -> BoxStream<'static, Result<C, ProviderError>> {
    let start = Position {
        what,
        index: None,
        pace: Pace::new(),
        last: (None, empty),
        had_news: false,
    };
    stream::try_unfold(start, |mut position| async move {
        let content = position.next().await?;
        Ok(Some((content, position)))
    })
    .boxed()
}

struct Position<C> {
    what: Blocking,
    /// The index of the last answer; `None` for a read that doesn't wait.
    index: Option<u64>,
    pace: Pace,
    /// The digest of the last body, and what became of it.
    last: (Option<u64>, C),
    /// Whether the last answer said something new.
    had_news: bool,
}

impl<C: Content> Position<C> {
    async fn next(&mut self) -> Result<C, ProviderError> {
        let agents = Arc::clone(&self.what.agents);
        let (number, http) = agents.current();
        let outcome = self.next_from(http).await;
        outcome.inspect_err(|error| agents.failed(number, error))
    }

    async fn next_from(&mut self, http: &Http) -> Result<C, ProviderError> {
        let reply = self.next_reply(http).await?;
        self.index = next_index(self.index, &reply);
        // Most answers only end a wait; parsing them again would cost the most of all.
        let digest = Some(digest(&reply.body));
        self.had_news = self.last.0 != digest;
        if !self.had_news {
            return Ok(self.last.1.clone());
        }
        let wire = serde_json::from_slice(&reply.body).map_err(|cause| {
            let message = format!("{} answers what can't be read: {cause}", self.what.path);
            http.error(ProviderErrorKind::InvalidResponse, message)
        })?;
        let content = self.last.1.of(wire);
        if content.is_empty() {
            check_leader(http, &reply)?;
            self.what.agents.may_see(http, &self.what.needs).await?;
        }
        self.last = (digest, content.clone());
        Ok(content)
    }

    async fn next_reply(&mut self, http: &Http) -> Result<Reply, ProviderError> {
        let what = &self.what;
        let need = what.needs.first();
        self.pace.wait(self.had_news).await;
        let places = &what.agents.places;
        let (_place, block) = match self.index {
            None => (None, None),
            Some(index) => {
                let place = places.take().await;
                let block = place.is_some().then(|| (index, places.turn(what.wait)));
                (place, block)
            }
        };
        let reply = http.read(&what.path, &what.query, block, need).await?;
        check_origin(http, reply)
    }
}

fn digest(body: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(body);
    hasher.finish()
}

/// Every answer of Consul's to a blocking query has an index. One without is from something else
/// that happens to listen there, whatever its status.
fn check_origin(http: &Http, reply: Reply) -> Result<Reply, ProviderError> {
    match reply.headers.contains_key("x-consul-index") {
        true => Ok(reply),
        false => Err(http.error(
            ProviderErrorKind::InvalidResponse,
            "an answer without X-Consul-Index: that is no Consul agent",
        )),
    }
}

/// A server that knows no leader may not have caught up yet; that it has nothing means nothing.
fn check_leader(http: &Http, reply: &Reply) -> Result<(), ProviderError> {
    let leader = reply.headers.get("x-consul-knownleader");
    match leader.is_some_and(|known| known == "false") {
        false => Ok(()),
        true => Err(http.error(
            ProviderErrorKind::Unreachable,
            "an empty answer of a server that knows no leader",
        )),
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

/// A token bucket against hot loops: many changes in a row pass without delay. Endless answers
/// without news, such as from a server without blocking queries, are read at a steady pace; endless
/// changes at five times that.
struct Pace {
    tokens: f64,
    at: Instant,
}

impl Pace {
    const BURST: f64 = 50.0;
    const PER_SECOND: f64 = 10.0;
    const COST_OF_NEWS: f64 = 0.2;

    fn new() -> Self {
        Self {
            tokens: Self::BURST,
            at: Instant::now(),
        }
    }

    async fn wait(&mut self, after_news: bool) {
        let cost = match after_news {
            true => Self::COST_OF_NEWS,
            false => 1.0,
        };
        let earned = self.at.elapsed().as_secs_f64() * Self::PER_SECOND;
        self.tokens = (self.tokens + earned).min(Self::BURST);
        self.at = Instant::now();
        if self.tokens < cost {
            let missing = (cost - self.tokens) / Self::PER_SECOND;
            sleep(Duration::from_secs_f64(missing)).await;
        }
        self.tokens -= cost;
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
            pace.wait(false).await;
        }
        assert_eq!(started.elapsed(), Duration::ZERO);
        for _ in 0..100 {
            pace.wait(false).await;
        }
        let took = started.elapsed().as_secs_f64();
        assert!((9.5..10.5).contains(&took), "{took}");
        for _ in 0..100 {
            pace.wait(true).await;
        }
        let took = started.elapsed().as_secs_f64() - took;
        assert!((1.5..2.5).contains(&took), "{took}");
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
