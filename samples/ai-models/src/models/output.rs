//! The results of the models.

use serde::Serialize;
use utoipa::ToSchema;

/// The result of a model for one text. Its form depends on the model's task.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Output {
    Language(Language),
    Sentiment(Sentiment),
    Keywords(Keywords),
    Text(GeneratedText),
}

/// The most likely language of a text.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Language {
    /// ISO 639-3 code; `null` if the text contains no letters.
    #[schema(example = "por")]
    pub(crate) code: Option<&'static str>,
    /// The language's name in English.
    #[schema(example = "Portuguese")]
    pub(crate) name: Option<&'static str>,
    /// The language's name in the language itself.
    #[schema(example = "Português")]
    pub(crate) native_name: Option<&'static str>,
    /// The script that most of the letters belong to.
    #[schema(example = "Latin")]
    pub(crate) script: Option<String>,
    /// From 0 (a guess) to 1 (certain).
    pub(crate) confidence: f64,
    /// Whether the confidence is above 0.9, where errors are rare.
    pub(crate) reliable: bool,
}

/// The sentiment of a text.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Sentiment {
    pub(crate) label: Label,
    /// From -1 (most negative) to 1 (most positive).
    #[schema(example = 0.8316)]
    pub(crate) compound: f64,
    /// The positive share of the text, from 0 to 1.
    pub(crate) positive: f64,
    /// The neutral share of the text, from 0 to 1.
    pub(crate) neutral: f64,
    /// The negative share of the text, from 0 to 1.
    pub(crate) negative: f64,
    /// A warning that the score may not be meaningful.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

/// The sign of the compound score; neutral between -0.05 and 0.05.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Label {
    Positive,
    Neutral,
    Negative,
}

/// The most important words and phrases of a text.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Keywords {
    /// ISO 639-3 code of the language whose stop words were ignored.
    #[schema(example = "eng")]
    pub(crate) language: &'static str,
    /// The most important first.
    pub(crate) keywords: Vec<Keyword>,
    /// Why there are no keywords, unless the text is too short.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) note: Option<String>,
}

/// A word, or a phrase of up to three words, as it first occurs in the text.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Keyword {
    #[schema(example = "service registry")]
    pub(crate) text: String,
    /// The YAKE score: above 0, and lower for more important keywords.
    pub(crate) score: f64,
    /// The importance relative to the first keyword, which has 1.
    pub(crate) relevance: f64,
}

/// The text written by a text-generation model.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct GeneratedText {
    pub(crate) text: String,
}
