//! The responses of the OpenAI API, as far as they are used.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// The response to `GET /models`.
#[derive(Deserialize)]
pub(super) struct ModelList {
    /// Ollama sends `null` if it has no models.
    #[serde(deserialize_with = "null_is_empty")]
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

fn null_is_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ModelEntry>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The response to `POST /chat/completions` without streaming.
#[derive(Deserialize)]
pub(super) struct Completion {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
}

#[derive(Deserialize)]
pub(super) struct Message {
    pub(super) content: Option<String>,
}

impl Completion {
    /// The text of the first choice.
    pub(super) fn text(self) -> Option<String> {
        let choice = self.choices.into_iter().next()?;
        Some(choice.message.content.unwrap_or_default())
    }
}

/// One event of a streamed response.
#[derive(Deserialize)]
pub(super) struct Chunk {
    #[serde(default)]
    pub(super) choices: Vec<ChunkChoice>,
    pub(super) error: Option<Value>,
}

#[derive(Deserialize)]
pub(super) struct ChunkChoice {
    pub(super) delta: Option<Message>,
    pub(super) finish_reason: Option<String>,
}
