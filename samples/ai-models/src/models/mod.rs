//! The models that run inside this process. A new one is a file here and a line in [`all`].

mod keywords;
mod language;
mod sentences;
mod sentiment;

use std::sync::Arc;

use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

pub(crate) use keywords::Keywords;
pub(crate) use language::Language;
pub(crate) use sentences::split as sentences;
pub(crate) use sentiment::Sentiment;

use crate::problem::Problem;

/// Settings of one inference, by name; each model says which it knows.
pub(crate) type Parameters = Map<String, Value>;

/// The longest text a local model takes, in characters. Keyword extraction costs the most: at this
/// length its worst known text (a list of addresses) takes it a fraction of a second.
pub(crate) const MAX_CHARACTERS: usize = 10_000;

/// Something that reads a text and says what it found. It must not keep the text.
pub(crate) trait Model: Send + Sync {
    /// What the model is, for those who choose one.
    fn about(&self) -> About;

    /// Answers for one text. Fails only for a parameter it doesn't know or can't take.
    fn infer(&self, text: &str, parameters: &Parameters) -> Result<Output, Problem>;
}

/// Every local model, in the order in which they are shown.
pub(crate) fn all() -> Vec<Arc<dyn Model>> {
    vec![
        Arc::new(language::Detector),
        Arc::new(sentiment::Scorer::new()),
        Arc::new(keywords::Extractor),
    ]
}

/// What a model tells of itself.
pub(crate) struct About {
    pub(crate) id: &'static str,
    pub(crate) name: &'static str,
    pub(crate) task: Task,
    pub(crate) description: &'static str,
    pub(crate) source: &'static str,
    pub(crate) parameters: &'static [Parameter],
    pub(crate) example: &'static str,
}

/// What a model does with a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Task {
    LanguageIdentification,
    SentimentAnalysis,
    KeywordExtraction,
    TextGeneration,
}

/// A setting that a model knows.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Parameter {
    #[schema(example = "limit")]
    pub(crate) name: &'static str,
    pub(crate) description: &'static str,
}

/// What a model found in one text. Its shape follows from the model's task.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Output {
    Language(Language),
    Sentiment(Sentiment),
    Keywords(Keywords),
    Text(GeneratedText),
}

/// What a text-generation model wrote.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct GeneratedText {
    pub(crate) text: String,
}

/// Refuses parameters of which a model knows nothing, so that a typing error isn't silently ignored.
fn refuse_unknown(parameters: &Parameters, about: &About) -> Result<(), Problem> {
    let known: Vec<_> = about
        .parameters
        .iter()
        .map(|parameter| parameter.name)
        .collect();
    match parameters
        .keys()
        .find(|name| !known.contains(&name.as_str()))
    {
        Some(name) => Err(Problem::unknown_parameter(about.id, name, &known)),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_model_answers_for_its_own_example() {
        for model in all() {
            let about = model.about();
            model
                .infer(about.example, &Parameters::new())
                .unwrap_or_else(|problem| panic!("{}: {problem:?}", about.id));
        }
    }

    #[test]
    fn a_parameter_no_model_knows_is_refused_by_name() {
        let parameters = Parameters::from_iter([("temprature".to_owned(), Value::from(1))]);
        for model in all() {
            let problem = model.infer("text", &parameters).unwrap_err();
            assert!(problem.detail.contains("temprature"), "{problem:?}");
        }
    }
}
