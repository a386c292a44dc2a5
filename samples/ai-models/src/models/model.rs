//! The common interface of all models.

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use super::output::Output;
use crate::problem::Problem;

/// Parameters of a request, by name.
pub(crate) type Parameters = Map<String, Value>;

/// The longest text a local model accepts, in characters. Keyword extraction is the slowest: at
/// this length its worst known case, a list of addresses, takes a fraction of a second.
pub(crate) const MAX_CHARACTERS: usize = 10_000;

/// A model that runs inside this process.
pub(crate) trait Model: Send + Sync {
    fn info(&self) -> ModelInfo;

    /// Runs the model on one text. Fails only if a parameter is unknown or not valid.
    fn infer(&self, text: &str, parameters: &Parameters) -> Result<Output, Problem>;
}

/// The description of a model.
pub(crate) struct ModelInfo {
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    pub(crate) task: Task,
    pub(crate) description: &'static str,
    pub(crate) source: &'static str,
    pub(crate) parameters: &'static [Parameter],
    pub(crate) example: &'static str,
}

impl ModelInfo {
    /// Rejects parameters that the model doesn't have, since they are probably misspelt.
    pub(super) fn reject_unknown(&self, parameters: &Parameters) -> Result<(), Problem> {
        let known: Vec<_> = self.parameters.iter().map(|it| it.name).collect();
        match parameters
            .keys()
            .find(|name| !known.contains(&name.as_str()))
        {
            Some(name) => Err(Problem::unknown_parameter(self.id, name, &known)),
            None => Ok(()),
        }
    }
}

/// The task of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Task {
    LanguageIdentification,
    SentimentAnalysis,
    KeywordExtraction,
    TextGeneration,
}

/// A parameter of a model.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Parameter {
    #[schema(example = "limit")]
    pub(crate) name: &'static str,
    pub(crate) description: &'static str,
}
