//! Is a text glad or cross? The VADER lexicon and rules of `vader-parity`.

use serde::Serialize;
use utoipa::ToSchema;
use vader_parity::SentimentIntensityAnalyzer;

use super::{About, Model, Output, Parameters, Task, refuse_unknown};
use crate::problem::Problem;

/// From this compound score on a text counts as positive, and from its negative on as negative:
/// the thresholds that VADER's authors recommend.
const THRESHOLD: f64 = 0.05;

pub(super) struct Scorer {
    analyzer: SentimentIntensityAnalyzer,
}

/// How glad or cross a text is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Sentiment {
    pub(crate) label: Label,
    /// From -1 (as cross as can be) to 1 (as glad as can be).
    #[schema(example = 0.8316)]
    pub(crate) compound: f64,
    /// The positive share of the text, from 0 to 1.
    pub(crate) positive: f64,
    /// The neutral share of the text, from 0 to 1.
    pub(crate) neutral: f64,
    /// The negative share of the text, from 0 to 1.
    pub(crate) negative: f64,
    /// A reason to doubt the score, if there is one.
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

impl Scorer {
    pub(super) fn new() -> Self {
        Self {
            analyzer: SentimentIntensityAnalyzer::new(),
        }
    }
}

impl Model for Scorer {
    fn about(&self) -> About {
        About {
            id: "sentiment",
            name: "Sentiment",
            task: Task::SentimentAnalysis,
            description: "Scores an English text from -1 (negative) to 1 (positive). It knows negation, emphasis, \
                          capitals, slang and emoji.",
            source: "vader-parity (MIT OR Apache-2.0): the VADER lexicon and rules of Hutto & Gilbert, 2014",
            parameters: &[],
            example: "The support was friendly and FAST!!! But the manual is not good.",
        }
    }

    fn infer(&self, text: &str, parameters: &Parameters) -> Result<Output, Problem> {
        refuse_unknown(parameters, &self.about())?;
        let scores = self.analyzer.polarity_scores(text);
        Ok(Output::Sentiment(Sentiment {
            label: label(scores.compound),
            compound: scores.compound,
            positive: scores.pos,
            neutral: scores.neu,
            negative: scores.neg,
            note: doubt(text),
        }))
    }
}

fn label(compound: f64) -> Label {
    if compound >= THRESHOLD {
        Label::Positive
    } else if compound <= -THRESHOLD {
        Label::Negative
    } else {
        Label::Neutral
    }
}

/// The lexicon is English: it finds next to nothing in another language and would call it neutral.
fn doubt(text: &str) -> Option<String> {
    let language = whatlang::detect(text)
        .filter(whatlang::Info::is_reliable)?
        .lang();
    (language != whatlang::Lang::Eng).then(|| {
        format!(
            "The lexicon is English and this looks like {}: the score means little.",
            language.eng_name()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentiment(text: &str) -> Sentiment {
        match Scorer::new().infer(text, &Parameters::new()) {
            Ok(Output::Sentiment(sentiment)) => sentiment,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn negation_and_emphasis_move_the_score() {
        let good = sentiment("The food was good.");
        assert_eq!(good.label, Label::Positive);
        assert_eq!(sentiment("The food was not good.").label, Label::Negative);
        assert!(sentiment("The food was VERY good!!!").compound > good.compound);
        assert_eq!(
            sentiment("The table is made of wood.").label,
            Label::Neutral
        );
    }

    #[test]
    fn another_language_is_scored_with_a_warning() {
        assert_eq!(
            sentiment("The weather is lovely and everybody is happy today.").note,
            None
        );
        let note = sentiment(
            "Das Wetter ist heute wunderschön und alle Menschen sind glücklich und zufrieden.",
        )
        .note;
        assert!(note.is_some_and(|note| note.contains("German")));
    }
}
