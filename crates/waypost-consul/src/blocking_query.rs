//! Watches a path of Consul's HTTP API by blocking queries.

use std::hash::{DefaultHasher, Hasher};
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use serde::de::DeserializeOwned;
use waypost_core::{ProviderError, ProviderErrorKind};

use crate::acl::AclRule;
use crate::agent_client::{AgentClient, Response};
use crate::agents::Agents;
use crate::rate_limiter::RateLimiter;

/// A path to watch, and how to read it.
pub(super) struct BlockingQuery<D> {
    pub(super) agents: Arc<Agents>,
    pub(super) path: String,
    pub(super) params: Vec<(String, String)>,
    /// The longest wait of one request for a change.
    pub(super) wait: Duration,
    /// The rules that the token needs. Without them Consul's response may be empty instead of an
    /// error.
    pub(super) required_rules: Vec<AclRule>,
    pub(super) decoder: D,
}

/// Converts the body of a response to an item of the watch.
pub(super) trait Decoder: Send + Sync + 'static {
    type Body: DeserializeOwned;
    type Item: Clone + Send;

    fn decode(&self, body: Self::Body) -> Self::Item;
    fn is_empty(item: &Self::Item) -> bool;
}

impl<D: Decoder> BlockingQuery<D> {
    /// Sends one request after the other, by the rules of Consul's documentation ("Blocking
    /// Queries"). The stream ends with the first failure.
    ///
    /// A response without a change is an item as well: it confirms that the last one is still valid. The
    /// end of a connection on which a request was waiting confirms it too, because the agent would have
    /// responded to an earlier change. So the last item is sent once more before the error.
    pub(super) fn watch(self) -> BoxStream<'static, Result<D::Item, ProviderError>> {
        let state = QueryState {
            query: self,
            index: None,
            rate_limiter: RateLimiter::new(),
            last: None,
            has_changed: false,
            was_waiting: false,
            failure: None,
        };
        stream::try_unfold(state, |mut state| async move {
            let item = state.next().await?;
            Ok(Some((item, state)))
        })
        .boxed()
    }
}

impl<D> BlockingQuery<D> {
    /// One request. With an index and a wait in `block`, the agent may hold it for that long.
    async fn get(
        &self,
        agent: &AgentClient,
        block: Option<(u64, Duration)>,
    ) -> Result<Response, ProviderError> {
        let rule = self.required_rules.first();
        let response = agent.get(&self.path, &self.params, block, rule).await;
        let response = response.map_err(|error| agent.error_of_known_path(error))?;
        check_index(agent, response)
    }
}

struct QueryState<D: Decoder> {
    query: BlockingQuery<D>,
    /// The index to wait on; `None` for a read that doesn't wait.
    index: Option<u64>,
    rate_limiter: RateLimiter,
    /// The digest of the last body, and the item that it was decoded to.
    last: Option<(u64, D::Item)>,
    /// Whether the last response differed from the one before.
    has_changed: bool,
    /// Whether the connection of the last request ended while the agent held it.
    was_waiting: bool,
    /// The error that comes after the item that was sent once more.
    failure: Option<ProviderError>,
}

impl<D: Decoder> QueryState<D> {
    async fn next(&mut self) -> Result<D::Item, ProviderError> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let agents = Arc::clone(&self.query.agents);
        let (number, agent) = agents.current();
        let result = self.next_from(agent).await;
        let result = result.inspect_err(|error| agents.report_failure(number, error));
        match (result, &self.last) {
            (Err(failure), Some((_, confirmed))) if self.was_waiting => {
                self.failure = Some(failure);
                Ok(confirmed.clone())
            }
            (result, _) => result,
        }
    }

    async fn next_from(&mut self, agent: &AgentClient) -> Result<D::Item, ProviderError> {
        let (response, cut) = self.request(agent).await?;
        let cut = cut.or_else(|| self.restored(agent, &response));
        self.index = next_index(self.index, &response);
        // Most responses end a wait without a change, and parsing is the most expensive step.
        let digest = digest(&response.body);
        if let Some((last_digest, item)) = &self.last
            && *last_digest == digest
        {
            self.has_changed = false;
            return Ok(item.clone());
        }
        self.has_changed = true;
        let body = serde_json::from_slice(&response.body).map_err(|cause| {
            let message = format!("malformed response to {}: {cause}", self.query.path);
            agent.error(ProviderErrorKind::InvalidResponse, message)
        })?;
        let item = self.query.decoder.decode(body);
        if D::is_empty(&item) {
            check_leader(agent, &response)?;
            let rules = &self.query.required_rules;
            self.query.agents.check_rules(agent, rules).await?;
            // The instances are gone after the query was interrupted or the index went back: the registry
            // may have been replaced or restored.
            let had_some = self
                .last
                .as_ref()
                .is_some_and(|(_, last)| !D::is_empty(last));
            if let Some(cut) = cut.filter(|_| had_some) {
                return Err(cut);
            }
        }
        self.last = Some((digest, item.clone()));
        Ok(item)
    }

    /// The error to report for missing instances if the index went back, because the servers were restored from
    /// an older state.
    fn restored(&self, agent: &AgentClient, response: &Response) -> Option<ProviderError> {
        let (before, now) = (self.index?, index(response)?);
        (now < before).then(|| {
            let message =
                format!("restored from an older state: the index went back from {before} to {now}");
            agent.error(ProviderErrorKind::Unconfirmed, message)
        })
    }

    /// The response, and the error of the blocking query if it was interrupted.
    async fn request(
        &mut self,
        agent: &AgentClient,
    ) -> Result<(Response, Option<ProviderError>), ProviderError> {
        self.was_waiting = false;
        self.rate_limiter.acquire(self.has_changed).await;
        let limit = &self.query.agents.connection_limit;
        let (permit, block) = match self.index {
            None => (None, None),
            Some(index) => {
                let permit = limit.acquire().await;
                let wait = limit.limit_wait(self.query.wait);
                let block = permit.is_some().then_some((index, wait));
                (permit, block)
            }
        };
        match self.query.get(agent, block).await {
            // A proxy has closed a request that waited for too long, or was reloaded. The registry is
            // fine if it answers a request that doesn't wait.
            Err(cut) if block.is_some() && cut.kind() == ProviderErrorKind::Unreachable => {
                drop(permit);
                self.was_waiting = AgentClient::is_connection_loss(&cut);
                tracing::debug!(%cut, path = self.query.path, "a blocking query was closed before its wait was over");
                self.rate_limiter.acquire(false).await;
                Ok((self.query.get(agent, None).await?, Some(cut)))
            }
            response => Ok((response?, None)),
        }
    }
}

fn digest(body: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(body);
    hasher.finish()
}

/// Refuses a response without an index. Every response of Consul to a blocking query has one, so the
/// server is not a Consul agent.
fn check_index(agent: &AgentClient, response: Response) -> Result<Response, ProviderError> {
    if response.headers.contains_key("x-consul-index") {
        Ok(response)
    } else {
        Err(agent.error(
            ProviderErrorKind::InvalidResponse,
            "response without X-Consul-Index: the server is not a Consul agent",
        ))
    }
}

/// Refuses an empty response of a server without a leader, which may not have caught up yet.
fn check_leader(agent: &AgentClient, response: &Response) -> Result<(), ProviderError> {
    let known_leader = response.headers.get("x-consul-knownleader");
    if known_leader.is_some_and(|known| known == "false") {
        return Err(agent.error(
            ProviderErrorKind::Unreachable,
            "empty response from a server that has no leader",
        ));
    }
    Ok(())
}

/// The index to wait on next. It goes backwards only if the server was restored or replaced; then,
/// and if there is no valid index, the next request must not wait.
fn next_index(last: Option<u64>, response: &Response) -> Option<u64> {
    let index = index(response)?;
    match last {
        Some(last) if index < last => None,
        // With 0, every request would return at once.
        _ => Some(index.max(1)),
    }
}

/// The index of a response.
fn index(response: &Response) -> Option<u64> {
    let header = response.headers.get("x-consul-index")?;
    header.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;
    use hyper::body::Bytes;

    use super::*;

    #[test]
    fn an_index_that_goes_backwards_or_is_invalid_is_dropped() {
        let response = |index: Option<&str>| {
            let mut headers = HeaderMap::new();
            if let Some(index) = index {
                headers.insert("x-consul-index", index.parse().unwrap());
            }
            Response {
                headers,
                body: Bytes::new(),
            }
        };
        for (last, header, next) in [
            (None, Some("7"), Some(7)),
            (Some(7), Some("7"), Some(7)),
            (Some(7), Some("8"), Some(8)),
            (Some(7), Some("6"), None),
            (None, Some("0"), Some(1)),
            (Some(7), None, None),
            (Some(7), Some("many"), None),
        ] {
            assert_eq!(
                next_index(last, &response(header)),
                next,
                "{last:?} {header:?}"
            );
        }
    }
}
