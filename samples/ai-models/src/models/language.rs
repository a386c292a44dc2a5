//! Which language is a text written in? Trigram profiles and alphabets of `whatlang`.

use serde::Serialize;
use utoipa::ToSchema;

use super::{About, Model, Output, Parameters, Task, refuse_unknown};
use crate::problem::Problem;

pub(super) struct Detector;

/// The language that a text is most likely written in.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub(crate) struct Language {
    /// ISO 639-3 code; `null` when the text holds no letters to judge by.
    #[schema(example = "por")]
    pub(crate) code: Option<&'static str>,
    /// The language's name in English.
    #[schema(example = "Portuguese")]
    pub(crate) name: Option<&'static str>,
    /// The language's name in the language itself.
    #[schema(example = "Português")]
    pub(crate) native_name: Option<&'static str>,
    /// The script that most of its letters belong to.
    #[schema(example = "Latin")]
    pub(crate) script: Option<String>,
    /// From 0 (a guess) to 1 (no doubt).
    pub(crate) confidence: f64,
    /// Whether the confidence is above 0.9, from where on mistakes are rare.
    pub(crate) reliable: bool,
}

impl Model for Detector {
    fn about(&self) -> About {
        About {
            id: "language",
            name: "Language",
            task: Task::LanguageIdentification,
            description: "Names the language and the script of a text, out of some 70 languages. \
                          A sentence or more gives a sure answer; a word or two is a guess.",
            source: "whatlang (MIT): trigram language profiles after Cavnar & Trenkle, 1994",
            parameters: &[],
            example: "Bom dia! Onde fica a estação de comboios?",
        }
    }

    fn infer(&self, text: &str, parameters: &Parameters) -> Result<Output, Problem> {
        refuse_unknown(parameters, &self.about())?;
        let found = whatlang::detect(text);
        let language = found.as_ref().map(whatlang::Info::lang);
        let script = found
            .as_ref()
            .map(whatlang::Info::script)
            .or_else(|| whatlang::detect_script(text));
        Ok(Output::Language(Language {
            code: language.map(|language| language.code()),
            name: language.map(whatlang::Lang::eng_name),
            native_name: language.map(whatlang::Lang::name),
            script: script.map(|script| script.name().to_owned()),
            confidence: found.as_ref().map_or(0.0, whatlang::Info::confidence),
            reliable: found.as_ref().is_some_and(whatlang::Info::is_reliable),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn language(text: &str) -> Language {
        match Detector.infer(text, &Parameters::new()) {
            Ok(Output::Language(language)) => language,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn tells_languages_of_one_script_and_of_several_apart() {
        let cases = [
            (
                "The quick brown fox jumps over the lazy dog and runs away.",
                "eng",
            ),
            (
                "Der schnelle braune Fuchs springt über den faulen Hund.",
                "deu",
            ),
            (
                "El zorro marrón salta rápidamente sobre el perro perezoso.",
                "spa",
            ),
            (
                "Быстрая коричневая лиса перепрыгивает через ленивую собаку.",
                "rus",
            ),
            ("今日はとても良い天気です。", "jpn"),
            ("כל בני האדם נולדו בני חורין", "heb"),
        ];
        for (text, code) in cases {
            assert_eq!(language(text).code, Some(code), "{text}");
        }
    }

    #[test]
    fn says_that_it_does_not_know_when_there_are_no_letters() {
        let found = language("12345 ... !!!");
        assert_eq!(found.code, None);
        assert_eq!(found.confidence, 0.0);
        assert!(!found.reliable);
    }
}
