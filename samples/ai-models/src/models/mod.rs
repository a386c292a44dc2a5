//! The local models. To add one, write a module here and list it in [`all`].

mod keywords;
mod language;
mod model;
mod output;
mod sentences;
mod sentiment;

use std::sync::Arc;

pub(crate) use model::{MAX_CHARACTERS, Model, Parameter, Parameters, Task};
pub(crate) use output::{GeneratedText, Output};
pub(crate) use sentences::split as sentences;

/// Every local model, in display order.
pub(crate) fn all() -> Vec<Arc<dyn Model>> {
    vec![
        Arc::new(language::Detector),
        Arc::new(sentiment::Scorer::new()),
        Arc::new(keywords::Extractor),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn every_model_accepts_its_own_example() {
        for model in all() {
            let info = model.info();
            model
                .infer(info.example, &Parameters::new())
                .unwrap_or_else(|problem| panic!("{}: {problem:?}", info.id));
        }
    }

    #[test]
    fn an_unknown_parameter_is_rejected_by_name() {
        let parameters = Parameters::from_iter([("temprature".to_owned(), Value::from(1))]);
        for model in all() {
            let problem = model.infer("text", &parameters).unwrap_err();
            assert!(problem.detail.contains("temprature"), "{problem:?}");
        }
    }
}
