//! Keyword extraction with `yake-rust`, a statistical method.

use whatlang::Lang;
use yake_rust::{Config, StopWords};

use super::model::{Model, ModelInfo, Parameter, Parameters, Task};
use super::output::{Keyword, Keywords, Output};
use crate::problem::Problem;

const DEFAULT_LIMIT: u64 = 10;
const MAX_LIMIT: u64 = 50;

/// In characters. A longer phrase is text that the extractor failed to split.
const MAX_PHRASE: usize = 80;

pub(super) struct Extractor;

impl Model for Extractor {
    fn info(&self) -> ModelInfo {
        ModelInfo {
            id: "keywords",
            name: "Keywords",
            task: Task::KeywordExtraction,
            description: "Extracts the most important words and phrases of a text, by their frequency, position and \
                          context. Detects the language, and ignores the stop words of about 30 languages.",
            source: "yake-rust (MIT): YAKE!, after Campos et al., 2018, with its lists of stop words",
            parameters: &[Parameter {
                name: "limit",
                description: "The maximum number of keywords, from 1 to 50. Default: 10.",
            }],
            example: "A service registry keeps a list of instances. Each instance of a service sends a heartbeat to \
                      the registry, and a client asks the service registry where the healthy instances are.",
        }
    }

    fn infer(&self, text: &str, parameters: &Parameters) -> Result<Output, Problem> {
        self.info().reject_unknown(parameters)?;
        let limit = limit(parameters)?;
        let language = whatlang::detect(text)
            .filter(whatlang::Info::is_reliable)
            .map_or(Lang::Eng, |info| info.lang());
        if writes_without_spaces(language) {
            let note = format!(
                "This model needs spaces between words, and {} is written without them.",
                language.eng_name()
            );
            return Ok(Output::Keywords(Keywords {
                language: language.code(),
                keywords: Vec::new(),
                note: Some(note),
            }));
        }
        let (language, stop_words) = stop_words(language);
        let keywords = extract(text, &stop_words, limit);
        Ok(Output::Keywords(Keywords {
            language: language.code(),
            keywords,
            note: None,
        }))
    }
}

fn extract(text: &str, stop_words: &StopWords, limit: usize) -> Vec<Keyword> {
    let mut found = yake_rust::get_n_best(limit, text, stop_words, &Config::default());
    found.retain(|item| item.raw.chars().count() <= MAX_PHRASE);
    let best = found.first().map_or(1.0, |item| item.score);
    found
        .into_iter()
        .map(|item| {
            let relevance = if item.score > 0.0 {
                (best / item.score).clamp(0.0, 1.0)
            } else {
                1.0
            };
            Keyword {
                text: item.raw,
                score: item.score,
                relevance,
            }
        })
        .collect()
}

fn limit(parameters: &Parameters) -> Result<usize, Problem> {
    let Some(value) = parameters.get("limit") else {
        return Ok(DEFAULT_LIMIT as usize);
    };
    match value.as_u64() {
        Some(limit @ 1..=MAX_LIMIT) => Ok(limit as usize),
        _ => Err(Problem::bad_parameter(
            "limit",
            &format!("a whole number from 1 to {MAX_LIMIT}"),
            value,
        )),
    }
}

fn writes_without_spaces(language: Lang) -> bool {
    matches!(
        language,
        Lang::Cmn | Lang::Jpn | Lang::Tha | Lang::Khm | Lang::Mya
    )
}

/// The stop words of a language if they are known, or those of English. A wrong list does little
/// harm, since it only filters.
fn stop_words(language: Lang) -> (Lang, StopWords) {
    let known = list_name(language)
        .and_then(StopWords::predefined)
        .map(|words| (language, words));
    known.unwrap_or_else(|| (Lang::Eng, StopWords::predefined("en").unwrap_or_default()))
}

/// The name of the extractor's list for a language: the ISO 639-1 code, except for Czech.
fn list_name(language: Lang) -> Option<&'static str> {
    Some(match language {
        Lang::Ara => "ar",
        Lang::Bul => "bg",
        Lang::Ces => "cz",
        Lang::Dan => "da",
        Lang::Deu => "de",
        Lang::Ell => "el",
        Lang::Eng => "en",
        Lang::Spa => "es",
        Lang::Est => "et",
        Lang::Pes => "fa",
        Lang::Fin => "fi",
        Lang::Fra => "fr",
        Lang::Hin => "hi",
        Lang::Hrv => "hr",
        Lang::Hun => "hu",
        Lang::Hye => "hy",
        Lang::Ind => "id",
        Lang::Ita => "it",
        Lang::Lit => "lt",
        Lang::Lav => "lv",
        Lang::Nld => "nl",
        Lang::Nob => "no",
        Lang::Pol => "pl",
        Lang::Por => "pt",
        Lang::Ron => "ro",
        Lang::Rus => "ru",
        Lang::Slk => "sk",
        Lang::Slv => "sl",
        Lang::Swe => "sv",
        Lang::Tur => "tr",
        Lang::Ukr => "uk",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn keywords(text: &str, parameters: serde_json::Value) -> Keywords {
        let parameters = parameters.as_object().cloned().unwrap_or_default();
        match Extractor.infer(text, &parameters) {
            Ok(Output::Keywords(keywords)) => keywords,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn finds_the_topic_of_a_text() {
        let found = keywords(Extractor.info().example, json!({"limit": 3}));
        assert_eq!(found.keywords.len(), 3);
        assert!(
            found
                .keywords
                .iter()
                .any(|keyword| keyword.text.contains("registry")),
            "{found:?}"
        );
        assert_eq!(found.keywords[0].relevance, 1.0);
        assert!(
            found
                .keywords
                .is_sorted_by(|a, b| a.relevance >= b.relevance)
        );
    }

    #[test]
    fn ignores_the_stop_words_of_the_detected_language() {
        let text = "Die Lokomotive zieht die Wagen über die Brücke. Die Lokomotive ist sehr alt, aber die Brücke ist neu.";
        let found = keywords(text, json!({}));
        assert_eq!(found.language, "deu");
        assert!(
            found
                .keywords
                .iter()
                .all(|keyword| keyword.text.to_lowercase() != "die"),
            "{found:?}"
        );
    }

    #[test]
    fn explains_that_a_language_without_spaces_is_not_supported() {
        let found = keywords("今日はとても良い天気です。散歩に行きましょう。", json!({}));
        assert!(found.keywords.is_empty());
        assert!(found.note.is_some_and(|note| note.contains("Japanese")));
    }

    #[test]
    fn every_supported_language_has_a_list_of_stop_words() {
        for language in Lang::all() {
            if let Some(name) = list_name(*language) {
                assert!(StopWords::predefined(name).is_some(), "{name}");
            }
        }
    }

    #[test]
    fn the_error_for_a_limit_out_of_range_names_the_range() {
        for bad in [json!(0), json!(51), json!("many"), json!(2.5)] {
            let parameters = Parameters::from_iter([("limit".to_owned(), bad)]);
            let problem = Extractor.infer("text", &parameters).unwrap_err();
            assert!(problem.detail.contains("1 to 50"), "{problem:?}");
        }
    }
}
