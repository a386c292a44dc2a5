//! Which models there are, local and upstream, and whether each is available.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

use crate::models::{Model, Output, Parameter, Parameters, Task};
use crate::problem::Problem;
use crate::upstream::{Listing, Upstream};
use crate::{models, upstream};

/// How long a text waits for a free worker before the client is told to try later.
const QUEUE: Duration = Duration::from_secs(10);

/// The models this instance offers.
pub(crate) struct Catalog {
    local: Vec<Arc<dyn Model>>,
    upstream: Option<Arc<Upstream>>,
    /// One permit for each core: local models compute, and more at once only makes all of them slow.
    workers: Arc<Semaphore>,
}

/// A model, found by its id.
#[derive(Clone)]
pub(crate) enum Chosen {
    Local(Arc<dyn Model>),
    Upstream(Arc<Upstream>, String),
}

/// A model as it is shown to those who choose one.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Model)]
pub(crate) struct Card {
    /// What to put into `model`.
    #[schema(example = "sentiment")]
    pub(crate) id: String,
    #[schema(example = "Sentiment")]
    pub(crate) name: String,
    pub(crate) task: Task,
    pub(crate) description: String,
    pub(crate) provider: Provider,
    /// The library or the server that the model comes from.
    pub(crate) source: String,
    pub(crate) status: Status,
    /// Why it's unavailable, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// What a streamed answer is made of.
    pub(crate) streams: Streams,
    /// The longest text it takes, in characters.
    pub(crate) max_characters: usize,
    /// What may stand in `parameters`. Those of an upstream model are the upstream's own.
    pub(crate) parameters: Vec<Parameter>,
    /// A text to try it with.
    pub(crate) example: String,
}

/// Where a model runs.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Provider {
    /// Inside this service.
    Local,
    /// On the server that `AI_MODELS_UPSTREAM` names.
    Upstream,
}

/// Whether a model can be used now.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Status {
    Available,
    Unavailable,
}

/// What a streamed answer is made of.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Streams {
    /// One part for each sentence of the text.
    Sentences,
    /// One part for each token that the model writes.
    Tokens,
}

/// The upstream server as it is shown.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Upstream)]
pub(crate) struct UpstreamCard {
    #[schema(example = "http://localhost:11434/v1")]
    pub(crate) url: String,
    pub(crate) status: Status,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

impl Catalog {
    pub(crate) fn new(upstream: Option<Upstream>) -> Self {
        let cores = std::thread::available_parallelism().map_or(2, usize::from);
        Self {
            local: models::all(),
            upstream: upstream.map(Arc::new),
            workers: Arc::new(Semaphore::new(cores)),
        }
    }

    /// Every model: the local ones first, then the upstream's, as last seen if it's down.
    pub(crate) async fn cards(&self) -> (Vec<Card>, Option<UpstreamCard>) {
        let mut cards: Vec<_> = self
            .local
            .iter()
            .map(|model| local_card(model.as_ref()))
            .collect();
        let Some(upstream) = &self.upstream else {
            return (cards, None);
        };
        let listing = upstream.listing().await;
        let server = UpstreamCard {
            url: upstream.shown_url(),
            status: listing.status(),
            reason: listing.reason(),
        };
        cards.extend(
            self.upstream_ids(&listing)
                .map(|id| upstream_card(id, &server)),
        );
        (cards, Some(server))
    }

    /// The model of that id. A local one wins over an upstream one of the same id.
    pub(crate) async fn choose(&self, id: &str) -> Result<Chosen, Problem> {
        if let Some(model) = self.local.iter().find(|model| model.about().id == id) {
            return Ok(Chosen::Local(model.clone()));
        }
        let mut known: Vec<_> = self
            .local
            .iter()
            .map(|model| model.about().id.to_owned())
            .collect();
        if let Some(upstream) = &self.upstream {
            let listing = upstream.listing().await;
            if listing.models.iter().any(|known| known == id) {
                return Ok(Chosen::Upstream(upstream.clone(), id.to_owned()));
            }
            match listing.failure {
                // It may well have the model: nobody can tell before it has answered once.
                Some(problem) if listing.models.is_empty() => return Err(problem),
                _ => known.extend(self.upstream_ids(&listing).cloned()),
            }
        }
        Err(Problem::unknown_model(id, &known))
    }

    /// Runs a local model on a worker thread.
    pub(crate) async fn infer(
        &self,
        model: &Arc<dyn Model>,
        text: String,
        parameters: Parameters,
    ) -> Result<Output, Problem> {
        let model = model.clone();
        let id = model.about().id;
        self.work(id, move || model.infer(&text, &parameters))
            .await?
    }

    /// Fails if the service's own models don't answer.
    pub(crate) async fn self_test(&self) -> Result<(), Problem> {
        for model in &self.local {
            let text = model.about().example.to_owned();
            self.infer(model, text, Parameters::new()).await?;
        }
        Ok(())
    }

    /// Why the upstream server can't be used; none if it can, or if there is none.
    pub(crate) async fn upstream_failure(&self) -> Option<String> {
        self.upstream.as_ref()?.listing().await.reason()
    }

    pub(crate) fn has_upstream(&self) -> bool {
        self.upstream.is_some()
    }

    /// Cuts a text into sentences, on a worker thread too.
    pub(crate) async fn sentences(
        &self,
        model: &Arc<dyn Model>,
        text: String,
    ) -> Result<Vec<String>, Problem> {
        self.work(model.about().id, move || models::sentences(&text))
            .await
    }

    /// A panic inside a model, on a text that its authors didn't think of, is that one request's problem.
    async fn work<T: Send + 'static>(
        &self,
        id: &'static str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Problem> {
        let queued = tokio::time::timeout(QUEUE, self.workers.clone().acquire_owned()).await;
        let Ok(Ok(permit)) = queued else {
            return Err(Problem::overloaded());
        };
        let done = tokio::task::spawn_blocking(move || {
            let _permit = permit;
            work()
        });
        done.await.map_err(|error| {
            tracing::error!(model = id, %error, "a model failed");
            Problem::model_failed(id)
        })
    }

    fn upstream_ids<'a>(&'a self, listing: &'a Listing) -> impl Iterator<Item = &'a String> {
        listing.models.iter().filter(|id| {
            self.local
                .iter()
                .all(|model| model.about().id != id.as_str())
        })
    }
}

impl Chosen {
    /// The id, under which an answer says where it's from.
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Local(model) => model.about().id,
            Self::Upstream(_, id) => id,
        }
    }

    pub(crate) fn task(&self) -> Task {
        match self {
            Self::Local(model) => model.about().task,
            Self::Upstream(..) => Task::TextGeneration,
        }
    }

    pub(crate) fn max_characters(&self) -> usize {
        match self {
            Self::Local(_) => models::MAX_CHARACTERS,
            Self::Upstream(..) => upstream::MAX_CHARACTERS,
        }
    }
}

impl Listing {
    fn status(&self) -> Status {
        if self.failure.is_none() {
            Status::Available
        } else {
            Status::Unavailable
        }
    }

    fn reason(&self) -> Option<String> {
        self.failure.as_ref().map(|problem| problem.detail.clone())
    }
}

fn local_card(model: &dyn Model) -> Card {
    let about = model.about();
    Card {
        id: about.id.to_owned(),
        name: about.name.to_owned(),
        task: about.task,
        description: about.description.to_owned(),
        provider: Provider::Local,
        source: about.source.to_owned(),
        status: Status::Available,
        reason: None,
        streams: Streams::Sentences,
        max_characters: models::MAX_CHARACTERS,
        parameters: about.parameters.to_vec(),
        example: about.example.to_owned(),
    }
}

fn upstream_card(id: &str, server: &UpstreamCard) -> Card {
    Card {
        id: id.to_owned(),
        name: id.to_owned(),
        task: Task::TextGeneration,
        description: "A model of the upstream server. The text is sent to it as a user's message."
            .to_owned(),
        provider: Provider::Upstream,
        source: server.url.clone(),
        status: server.status,
        reason: server.reason.clone(),
        streams: Streams::Tokens,
        max_characters: upstream::MAX_CHARACTERS,
        parameters: Vec::new(),
        example: "Explain in one sentence what a service registry is for.".to_owned(),
    }
}
