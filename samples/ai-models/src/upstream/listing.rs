//! Which models the upstream server has, as last seen.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::Instant;

use super::Upstream;
use crate::problem::Problem;

/// The server is asked again once what it said is this old. Callers in between get what it said;
/// callers at the same time share one request.
const FRESH: Duration = Duration::from_secs(5);

/// How long listing its models may take a server.
const TIMEOUT: Duration = Duration::from_secs(3);

/// The upstream's models as last seen, and why they can't be had now, if they can't.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listing {
    /// In the server's order. Kept when the server fails, so that what is missing can be shown.
    pub(crate) models: Vec<String>,
    /// Why the last attempt to list them failed; none if it didn't.
    pub(crate) failure: Option<Problem>,
    asked: Option<Instant>,
}

impl Upstream {
    /// The server's models. Never fails: a server that doesn't answer is part of the picture.
    pub(crate) async fn listing(&self) -> Listing {
        let mut listing = self.listing.lock().await;
        if listing.asked.is_none_or(|asked| asked.elapsed() >= FRESH) {
            let answer = tokio::time::timeout(TIMEOUT, self.list())
                .await
                .unwrap_or_else(|_| Err(self.too_slow()));
            match answer {
                Ok(models) => (listing.models, listing.failure) = (models, None),
                Err(problem) => listing.failure = Some(problem),
            }
            listing.asked = Some(Instant::now());
        }
        listing.clone()
    }

    async fn list(&self) -> Result<Vec<String>, Problem> {
        let response = self
            .http
            .get(self.url("models"))
            .send()
            .await
            .map_err(|error| self.no_answer(&error))?;
        if !response.status().is_success() {
            return Err(self.refused(response).await);
        }
        let body = response
            .bytes()
            .await
            .map_err(|error| self.no_answer(&error))?;
        let list: List = serde_json::from_slice(&body)
            .map_err(|error| self.not_understood(&error.to_string()))?;
        Ok(list.data.into_iter().map(|model| model.id).collect())
    }
}

/// The answer to `GET /models`; Ollama says `"data": null` while it has no model.
#[derive(Deserialize)]
struct List {
    #[serde(deserialize_with = "none_is_empty")]
    data: Vec<Entry>,
}

#[derive(Deserialize)]
struct Entry {
    id: String,
}

fn none_is_empty<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Entry>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
