//! The local and upstream models, their availability, and the threads that run local models.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::admission::{Admission, Slot};
use crate::models::{Model, Output, Parameter, Parameters, Task};
use crate::problem::Problem;
use crate::upstream::{Listing, Upstream};
use crate::{models, upstream};

/// How long the result of a self-test is used, so that many health checks cost no more than one.
const SELF_TEST_LIFETIME: Duration = Duration::from_millis(500);

/// The models that this instance offers.
pub(crate) struct Catalog {
    local: Vec<Arc<dyn Model>>,
    upstream: Option<Arc<Upstream>>,
    admission: Admission,
    /// The last result of the self-test. Locked while the test runs, so that it never occupies more
    /// than one thread.
    self_test: Arc<Mutex<Option<SelfTest>>>,
}

struct SelfTest {
    ended_at: Instant,
    result: Result<(), Problem>,
}

/// A model, found by its ID.
#[derive(Clone)]
pub(crate) enum FoundModel {
    Local(Arc<dyn Model>),
    Upstream(Arc<Upstream>, String),
}

/// The description of a model.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Model)]
pub(crate) struct ModelCard {
    /// The value for `model` in a request.
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
    /// Why it is unavailable, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    /// The parts of a streamed result.
    pub(crate) streams: Streams,
    /// The longest text it accepts, in characters.
    pub(crate) max_characters: usize,
    /// The valid `parameters`. Those of an upstream model are defined by the upstream server.
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

/// The parts of a streamed result.
#[derive(Clone, Copy, Debug, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Streams {
    /// One part for each sentence of the input.
    Sentences,
    /// One part for each token of the output.
    Tokens,
}

/// The description of the upstream server.
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
            admission: Admission::new(cores),
            self_test: Arc::default(),
        }
    }

    /// Every model, local ones first. If the upstream server is down, its last known models are
    /// included as unavailable.
    pub(crate) async fn cards(&self) -> (Vec<ModelCard>, Option<UpstreamCard>) {
        let local = self.local.iter().map(|model| local_card(model.as_ref()));
        let mut cards: Vec<_> = local.collect();
        let Some(upstream) = &self.upstream else {
            return (cards, None);
        };
        let listing = upstream.listing().await;
        let server = upstream_server_card(upstream, &listing);
        let ids = self.upstream_ids(&listing);
        cards.extend(ids.map(|id| upstream_card(id, &server)));
        (cards, Some(server))
    }

    /// Finds a model by its ID. A local model hides an upstream one with the same ID.
    pub(crate) async fn find(&self, id: &str) -> Result<FoundModel, Problem> {
        if let Some(model) = self.local.iter().find(|model| model.info().id == id) {
            return Ok(FoundModel::Local(Arc::clone(model)));
        }
        let local_ids = self.local.iter().map(|model| model.info().id.to_owned());
        let mut known: Vec<_> = local_ids.collect();
        if let Some(upstream) = &self.upstream {
            let listing = upstream.listing().await;
            if listing.models.iter().any(|model| model == id) {
                return Ok(FoundModel::Upstream(Arc::clone(upstream), id.to_owned()));
            }
            match listing.failure {
                // The server has never listed its models, so it may have this one.
                Some(problem) if listing.models.is_empty() => return Err(problem),
                _ => known.extend(self.upstream_ids(&listing).cloned()),
            }
        }
        Err(Problem::unknown_model(id, &known))
    }

    /// Waits for a slot to run a local model on texts of this many characters in total. If this
    /// instance is overloaded, the request is rejected.
    pub(crate) async fn admit(&self, characters: usize) -> Result<Slot, Problem> {
        self.admission.admit(characters).await
    }

    /// Runs a local model on another thread.
    pub(crate) async fn infer(
        &self,
        slot: &Slot,
        model: &Arc<dyn Model>,
        text: String,
        parameters: Parameters,
    ) -> Result<Output, Problem> {
        let model = Arc::clone(model);
        let id = model.info().id;
        run_blocking(slot, id, move || model.infer(&text, &parameters)).await?
    }

    /// Splits a text into sentences, on another thread.
    pub(crate) async fn sentences(
        &self,
        slot: &Slot,
        model: &Arc<dyn Model>,
        text: String,
    ) -> Result<Vec<String>, Problem> {
        run_blocking(slot, model.info().id, move || models::sentences(&text)).await
    }

    /// Runs every local model on its example. It needs no slot: an overloaded instance is busy, not
    /// broken.
    pub(crate) async fn self_test(&self) -> Result<(), Problem> {
        let mut last = Arc::clone(&self.self_test).lock_owned().await;
        if let Some(last) = &*last
            && last.ended_at.elapsed() < SELF_TEST_LIFETIME
        {
            return last.result.clone();
        }
        let local = self.local.clone();
        // The thread holds the lock, so that a model that hangs is not started again.
        let test = tokio::task::spawn_blocking(move || {
            let mut examples = local.iter().map(|model| (model, model.info().example));
            let result = examples
                .try_for_each(|(model, text)| model.infer(text, &Parameters::new()).map(drop));
            *last = Some(SelfTest {
                ended_at: Instant::now(),
                result: result.clone(),
            });
            result
        });
        test.await
            .unwrap_or_else(|error| Err(model_failed("self-test", &error)))
    }

    pub(crate) fn has_upstream(&self) -> bool {
        self.upstream.is_some()
    }

    /// Why the upstream server can't be used, if there is one and it can't.
    pub(crate) async fn upstream_failure(&self) -> Option<String> {
        let listing = self.upstream.as_ref()?.listing().await;
        listing.failure.map(|problem| problem.detail)
    }

    /// The IDs of the upstream models that no local model hides.
    fn upstream_ids<'a>(&'a self, listing: &'a Listing) -> impl Iterator<Item = &'a String> {
        let is_local = |id: &str| self.local.iter().any(|model| model.info().id == id);
        listing.models.iter().filter(move |id| !is_local(id))
    }
}

/// Runs `work` on a thread of the blocking pool. If a model panics on some text, only that request
/// fails.
async fn run_blocking<T: Send + 'static>(
    slot: &Slot,
    id: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    let slot = slot.clone();
    let result = tokio::task::spawn_blocking(move || {
        let _slot = slot;
        work()
    });
    result.await.map_err(|error| model_failed(id, &error))
}

fn model_failed(id: &str, error: &tokio::task::JoinError) -> Problem {
    tracing::error!(model = id, %error, "model failed");
    Problem::model_failed(id)
}

impl FoundModel {
    pub(crate) fn id(&self) -> &str {
        match self {
            Self::Local(model) => model.info().id,
            Self::Upstream(_, id) => id,
        }
    }

    pub(crate) fn task(&self) -> Task {
        match self {
            Self::Local(model) => model.info().task,
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

fn local_card(model: &dyn Model) -> ModelCard {
    let info = model.info();
    ModelCard {
        id: info.id.to_owned(),
        name: info.name.to_owned(),
        task: info.task,
        description: info.description.to_owned(),
        provider: Provider::Local,
        source: info.source.to_owned(),
        status: Status::Available,
        reason: None,
        streams: Streams::Sentences,
        max_characters: models::MAX_CHARACTERS,
        parameters: info.parameters.to_vec(),
        example: info.example.to_owned(),
    }
}

fn upstream_server_card(upstream: &Upstream, listing: &Listing) -> UpstreamCard {
    let reason = listing.failure.as_ref().map(|it| it.detail.clone());
    UpstreamCard {
        url: upstream.display_url(),
        status: if reason.is_none() {
            Status::Available
        } else {
            Status::Unavailable
        },
        reason,
    }
}

fn upstream_card(id: &str, server: &UpstreamCard) -> ModelCard {
    ModelCard {
        id: id.to_owned(),
        name: id.to_owned(),
        task: Task::TextGeneration,
        description: "A model of the upstream server. The text is sent to it as a user message."
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
