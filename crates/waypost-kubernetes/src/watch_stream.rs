//! The events of an open watch: one JSON object per line (Kubernetes API concepts, "Efficient
//! detection of changes").

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep_until};

use crate::error::ApiStatus;
use crate::object_key::ObjectKey;

/// The body of a response as it arrives.
pub(crate) type Chunks = BoxStream<'static, Result<Bytes, kube::Error>>;

/// Reads the events of one watch.
pub(crate) struct WatchStream {
    chunks: Chunks,
    buffer: BytesMut,
    /// The length of the part of the buffer that is known to hold no newline.
    searched: usize,
    opened: Instant,
    /// When the server must have ended the watch.
    deadline: Instant,
    received_any: bool,
}

/// One event of a watch.
#[derive(Debug)]
pub(crate) struct WatchEvent<T> {
    /// The version to resume from after this event; errors carry none.
    pub(crate) resource_version: Option<Box<str>>,
    pub(crate) content: WatchEventContent<T>,
}

#[derive(Debug)]
pub(crate) enum WatchEventContent<T> {
    /// The object was added or modified.
    Applied(T),
    /// This object was deleted.
    Deleted(ObjectKey),
    /// Nothing changed up to the event's resource version. In a watch that began with a list, one
    /// bookmark marks the end of the list.
    Bookmark { ends_initial_list: bool },
    /// The watch has failed and ends.
    Error(ApiStatus),
}

/// Why a watch could not be read any further.
#[derive(Debug)]
pub(crate) enum WatchStreamError {
    Connection(kube::Error),
    /// The server did not end the watch in time.
    TimedOut,
    Decode(serde_json::Error),
}

impl WatchStream {
    /// Reads a watch that the server must end within `max_age`.
    pub(crate) fn new(chunks: Chunks, max_age: Duration) -> Self {
        let opened = Instant::now();
        Self {
            chunks,
            buffer: BytesMut::new(),
            searched: 0,
            opened,
            deadline: opened + max_age,
            received_any: false,
        }
    }

    /// The next event; `None` when the server has ended the watch. Cancel safe.
    pub(crate) async fn next<T: DeserializeOwned>(
        &mut self,
    ) -> Result<Option<WatchEvent<T>>, WatchStreamError> {
        loop {
            let newline = self.buffer[self.searched..]
                .iter()
                .position(|b| *b == b'\n');
            if let Some(end) = newline {
                let line = self.buffer.split_to(self.searched + end + 1);
                self.searched = 0;
                self.received_any = true;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return parse(&line).map(Some).map_err(WatchStreamError::Decode);
            }
            self.searched = self.buffer.len();
            let chunk = tokio::select! {
                chunk = self.chunks.next() => chunk,
                () = sleep_until(self.deadline) => return Err(WatchStreamError::TimedOut),
            };
            match chunk {
                // An unterminated last line was cut off and is dropped.
                None => return Ok(None),
                Some(Err(cause)) => return Err(WatchStreamError::Connection(cause)),
                Some(Ok(chunk)) => self.buffer.extend_from_slice(&chunk),
            }
        }
    }

    /// Whether any line has arrived.
    pub(crate) fn has_received_any(&self) -> bool {
        self.received_any
    }

    /// How long ago the watch was opened.
    pub(crate) fn age(&self) -> Duration {
        self.opened.elapsed()
    }
}

fn parse<T: DeserializeOwned>(line: &[u8]) -> serde_json::Result<WatchEvent<T>> {
    let Envelope { r#type, object } = serde_json::from_slice(line)?;
    let PartialMetadata {
        namespace,
        name,
        resource_version,
        annotations,
    } = object.metadata;
    let content = match &*r#type {
        "ADDED" | "MODIFIED" => {
            WatchEventContent::Applied(serde_json::from_slice::<Typed<T>>(line)?.object)
        }
        "DELETED" => WatchEventContent::Deleted(ObjectKey { namespace, name }),
        "ERROR" => WatchEventContent::Error(ApiStatus {
            code: object.code,
            reason: object.reason,
            message: object.message,
        }),
        // Clients must ignore event types that they do not know.
        _ => WatchEventContent::Bookmark {
            ends_initial_list: annotations
                .is_some_and(|a| a.initial_events_end.as_deref() == Some("true")),
        },
    };
    Ok(WatchEvent {
        resource_version: Some(resource_version).filter(|version| !version.is_empty()),
        content,
    })
}

/// The parts of an event that say how to read its object.
#[derive(Deserialize)]
struct Envelope {
    r#type: Box<str>,
    object: PartialObject,
}

#[derive(Deserialize)]
struct PartialObject {
    #[serde(default)]
    metadata: PartialMetadata,
    #[serde(default)]
    code: u16,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PartialMetadata {
    namespace: Arc<str>,
    name: Arc<str>,
    resource_version: Box<str>,
    annotations: Option<BookmarkAnnotations>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct BookmarkAnnotations {
    #[serde(rename = "k8s.io/initial-events-end")]
    initial_events_end: Option<Box<str>>,
}

#[derive(Deserialize)]
struct Typed<T> {
    object: T,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resources::EndpointSlice;

    #[tokio::test]
    async fn events_are_read_whole_however_the_body_is_chunked() {
        let text = concat!(
            r#"{"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"5"},"addressType":"IPv4"}}"#,
            "\n",
            r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7","annotations":{"k8s.io/initial-events-end":"true"}}}}"#,
            "\n\n",
            r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"8","annotations":null}}}"#,
            "\n",
            r#"{"type":"DELETED","object":{"metadata":{"name":"a","namespace":"n","resourceVersion":"9"}}}"#,
            "\n",
            r#"{"type":"ERROR","object":{"kind":"Status","metadata":{},"code":410,"reason":"Expired","message":"too old"}}"#,
            "\n",
            r#"{"type":"ADDED","object":{"meta"#,
        );
        for size in [1, 7, 100, text.len()] {
            let chunks: Vec<_> = text
                .as_bytes()
                .chunks(size)
                .map(Bytes::from_static)
                .collect();
            let chunks = futures_util::stream::iter(chunks).map(Ok).boxed();
            let mut watch = WatchStream::new(chunks, Duration::from_secs(5));
            let mut events = Vec::new();
            while let Some(event) = watch.next::<EndpointSlice>().await.unwrap() {
                let version = event.resource_version.as_deref().unwrap_or("-").to_owned();
                events.push(match event.content {
                    WatchEventContent::Applied(slice) => {
                        format!("{version} applied {}", slice.metadata.name)
                    }
                    WatchEventContent::Deleted(ObjectKey { namespace, name }) => {
                        format!("{version} deleted {name} of {namespace}")
                    }
                    WatchEventContent::Bookmark { ends_initial_list } => {
                        format!("{version} bookmark {ends_initial_list}")
                    }
                    WatchEventContent::Error(status) => format!("{version} error {}", status.code),
                });
            }
            let expected = [
                "5 applied a",
                "7 bookmark true",
                "8 bookmark false",
                "9 deleted a of n",
                "- error 410",
            ];
            assert_eq!(events, expected, "{size}");
        }
    }
}
