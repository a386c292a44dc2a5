//! Language identification with `whatlang`, by trigram profiles and scripts.

use super::model::{Model, ModelInfo, Parameters, Task};
use super::output::{Language, Output};
use crate::problem::Problem;

pub(super) struct Detector;

impl Model for Detector {
    fn info(&self) -> ModelInfo {
        ModelInfo {
            id: "language",
            name: "Language",
            task: Task::LanguageIdentification,
            description: "Detects the language and the script of a text, out of about 70 languages. \
                          Reliable for a sentence or more; for one or two words it is a guess.",
            source: "whatlang (MIT): trigram language profiles, after Cavnar & Trenkle, 1994",
            parameters: &[],
            example: "Bom dia! Onde fica a estação de comboios?",
        }
    }

    fn infer(&self, text: &str, parameters: &Parameters) -> Result<Output, Problem> {
        self.info().reject_unknown(parameters)?;
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
    fn distinguishes_languages_with_the_same_and_with_different_scripts() {
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
    fn a_text_without_letters_has_no_language() {
        let found = language("12345 ... !!!");
        assert_eq!(found.code, None);
        assert_eq!(found.confidence, 0.0);
        assert!(!found.reliable);
    }
}
