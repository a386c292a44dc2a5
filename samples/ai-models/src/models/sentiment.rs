//! Sentiment analysis with `vader-parity`, by the VADER lexicon and rules.

use vader_parity::SentimentIntensityAnalyzer;

use super::model::{Model, ModelInfo, Parameters, Task};
use super::output::{Label, Output, Sentiment};
use crate::problem::Problem;

/// A text is positive from this compound score upwards, and negative from minus this score
/// downwards, as VADER's authors recommend.
const THRESHOLD: f64 = 0.05;

pub(super) struct Scorer {
    analyzer: SentimentIntensityAnalyzer,
}

impl Scorer {
    pub(super) fn new() -> Self {
        Self {
            analyzer: SentimentIntensityAnalyzer::new(),
        }
    }
}

impl Model for Scorer {
    fn info(&self) -> ModelInfo {
        ModelInfo {
            id: "sentiment",
            name: "Sentiment",
            task: Task::SentimentAnalysis,
            description: "Scores the sentiment of an English text from -1 (negative) to 1 (positive). Handles \
                          negation, emphasis, capitals, slang and emoji.",
            source: "vader-parity (MIT OR Apache-2.0): the VADER lexicon and rules of Hutto & Gilbert, 2014",
            parameters: &[],
            example: "The support was friendly and FAST!!! But the manual is not good.",
        }
    }

    fn infer(&self, text: &str, parameters: &Parameters) -> Result<Output, Problem> {
        self.info().reject_unknown(parameters)?;
        let scores = self.analyzer.polarity_scores(text);
        Ok(Output::Sentiment(Sentiment {
            label: label(scores.compound),
            compound: scores.compound,
            positive: scores.pos,
            neutral: scores.neu,
            negative: scores.neg,
            note: language_warning(text),
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

/// A warning for texts that are not English: the lexicon has few of their words, so they look neutral.
fn language_warning(text: &str) -> Option<String> {
    let language = whatlang::detect(text)
        .filter(whatlang::Info::is_reliable)?
        .lang();
    (language != whatlang::Lang::Eng).then(|| {
        format!(
            "The lexicon is English, but the text seems to be {}, so the score is not reliable.",
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
    fn a_text_in_another_language_is_scored_with_a_warning() {
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
