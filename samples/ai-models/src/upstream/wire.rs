//! The parts of the responses of the OpenAI API that are used. Servers differ in details, so members that
//! are not needed are optional, and `null` is the same as a missing member.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// The response to `GET /models`.
#[derive(Deserialize)]
pub(super) struct ModelList {
    /// Ollama sends `null` if it has no models.
    #[serde(deserialize_with = "null_is_default")]
    data: Vec<ModelEntry>,
}

#[derive(Deserialize)]
struct ModelEntry {
    id: String,
}

impl ModelList {
    pub(super) fn ids(self) -> Vec<String> {
        self.data.into_iter().map(|model| model.id).collect()
    }
}

/// The response to `POST /chat/completions`: all of it, or one event of a stream.
#[derive(Deserialize)]
pub(super) struct Completion {
    #[serde(default, deserialize_with = "null_is_default")]
    choices: Vec<Choice>,
}

/// One of the answers. There are several if the request has the parameter `n`; only the first is
/// used.
#[derive(Deserialize)]
pub(super) struct Choice {
    #[serde(default, deserialize_with = "null_is_default")]
    index: u64,
    /// The text of a response that is not streamed.
    message: Option<Message>,
    /// The next part of a streamed one.
    delta: Option<Message>,
    finish_reason: Option<Value>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<Value>,
    /// Sent instead of `content` if the model declines to answer.
    refusal: Option<String>,
}

/// Why the model stopped writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Finish {
    /// The answer is complete, or has reached the maximum length.
    Complete,
    /// Something went wrong.
    Failed,
}

impl Completion {
    /// The first choice, if this response or event is about it.
    pub(super) fn into_first_choice(self) -> Option<Choice> {
        self.choices.into_iter().find(|choice| choice.index == 0)
    }
}

impl Choice {
    /// The text or the next part of it; empty if there is none.
    pub(super) fn text(&self) -> String {
        let message = self.message.as_ref().or(self.delta.as_ref());
        message.map(Message::text).unwrap_or_default()
    }

    /// Why the model stopped, if it has. Some servers send an empty reason with every event.
    pub(super) fn finish(&self) -> Option<Finish> {
        match self.finish_reason.as_ref()?.as_str()? {
            "" | "null" => None,
            "error" | "abort" | "cancelled" | "content_filter" => Some(Finish::Failed),
            _ => Some(Finish::Complete),
        }
    }

    /// The server's `finish_reason`.
    pub(super) fn finish_reason(&self) -> &str {
        let reason = self.finish_reason.as_ref().and_then(Value::as_str);
        reason.unwrap_or_default()
    }
}

impl Message {
    fn text(&self) -> String {
        match &self.content {
            Some(Value::String(text)) => text.clone(),
            // A list of parts, such as `{"type": "text", "text": …}`.
            Some(Value::Array(parts)) => {
                let texts = parts.iter().filter_map(|part| part.get("text")?.as_str());
                texts.collect()
            }
            _ => self.refusal.clone().unwrap_or_default(),
        }
    }
}

/// The error that a body or an event reports in spite of the status 200, in any of the forms that
/// servers use.
pub(super) fn error_in(json: &Value) -> Option<&Value> {
    let is_error = |error: &&Value| match error {
        Value::Null | Value::Bool(false) => false,
        Value::String(text) => !text.is_empty(),
        Value::Object(members) => !members.is_empty(),
        _ => true,
    };
    // OpenAI, llama.cpp and Ollama.
    if let Some(error) = json.get("error").filter(is_error) {
        return Some(error);
    }
    // vLLM, and events of the type "error".
    let is_kind_error = |member: &str| json.get(member).and_then(Value::as_str) == Some("error");
    if is_kind_error("object") || is_kind_error("type") {
        return Some(json);
    }
    let Some(choices) = json.get("choices") else {
        // FastAPI ("detail"), and errors without an envelope.
        let member = json.get("detail").or_else(|| json.get("message"))?;
        return is_error(&member).then_some(json);
    };
    // OpenRouter.
    let choices = choices.as_array()?;
    let mut errors = choices.iter().filter_map(|choice| choice.get("error"));
    errors.find(is_error)
}

fn null_is_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_error_is_found_in_every_form_that_servers_use() {
        for error in [
            json!({"error": {"code": 400, "message": "too long"}}),
            json!({"error": "too long"}),
            json!({"object": "error", "message": "too long", "code": 400}),
            json!({"type": "error", "message": "too long"}),
            json!({"detail": "too long"}),
            json!({"code": 400, "message": "too long"}),
            json!({"choices": [{"index": 0, "delta": {}, "error": {"message": "too long"}}]}),
            json!({"choices": [], "error": {"message": "too long"}}),
        ] {
            let found = error_in(&error).unwrap_or_else(|| panic!("no error in {error}"));
            assert!(found.to_string().contains("too long"), "{found}");
        }
    }

    #[test]
    fn an_empty_error_member_is_not_an_error() {
        for event in [
            json!({"choices": [{"delta": {"content": "Hi"}}], "error": null}),
            json!({"choices": [{"delta": {"content": "Hi"}, "error": null}], "error": ""}),
            json!({"choices": [], "usage": {"total_tokens": 3}}),
            json!({"type": "ping"}),
        ] {
            assert_eq!(error_in(&event), None, "{event}");
        }
    }
}
