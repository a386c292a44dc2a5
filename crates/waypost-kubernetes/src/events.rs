use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::time::{Instant, sleep_until};

use super::fault::Status;

/// The body of an answer as it comes.
pub(super) type Chunks = BoxStream<'static, Result<Bytes, kube::Error>>;

/// The lines of an open watch, each a JSON object (Kubernetes API concepts, "Efficient detection of
/// changes").
pub(super) struct Events {
    chunks: Chunks,
    buffer: BytesMut,
    /// How much of the buffer is known to hold no end of a line.
    searched: usize,
    opened: Instant,
    /// When it must have ended.
    deadline: Instant,
    /// Whether anything came.
    heard: bool,
}

/// One line of a watch.
#[derive(Debug)]
pub(super) struct Event<T> {
    /// Where to go on after it; absent where the server gives none.
    pub(super) version: Option<Box<str>>,
    pub(super) news: News<T>,
}

#[derive(Debug)]
pub(super) enum News<T> {
    /// An object came or changed.
    Applied(T),
    /// The object of this name is gone.
    Deleted(Box<str>),
    /// Nothing happened up to here; the first of these may end the list at the beginning.
    Bookmark { ends_list: bool },
    /// The watch fails.
    Error(Status),
}

/// How the reading of a watch can end before its time.
#[derive(Debug)]
pub(super) enum Broken {
    Connection(kube::Error),
    /// Nothing came for too long.
    Silent,
    Unreadable(serde_json::Error),
}

impl Events {
    pub(super) fn new(chunks: Chunks, lasts: Duration) -> Self {
        let opened = Instant::now();
        Self {
            chunks,
            buffer: BytesMut::new(),
            searched: 0,
            opened,
            deadline: opened + lasts,
            heard: false,
        }
    }

    /// The next event; `None` at the orderly end. May be dropped and called again.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<Event<T>>, Broken> {
        loop {
            if let Some(end) = self.buffer[self.searched..]
                .iter()
                .position(|b| *b == b'\n')
            {
                let line = self.buffer.split_to(self.searched + end + 1);
                self.searched = 0;
                self.heard = true;
                if line.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                return parse(&line).map(Some).map_err(Broken::Unreadable);
            }
            self.searched = self.buffer.len();
            let chunk = tokio::select! {
                chunk = self.chunks.next() => chunk,
                () = sleep_until(self.deadline) => return Err(Broken::Silent),
            };
            match chunk {
                // What is left without an end was cut off.
                None => return Ok(None),
                Some(Err(cause)) => return Err(Broken::Connection(cause)),
                Some(Ok(chunk)) => self.buffer.extend_from_slice(&chunk),
            }
        }
    }

    pub(super) fn heard_anything(&self) -> bool {
        self.heard
    }

    pub(super) fn age(&self) -> Duration {
        self.opened.elapsed()
    }
}

/// What tells how to read the rest of a line. The object itself is passed over.
#[derive(Deserialize)]
struct Head {
    r#type: Box<str>,
    object: AnyObject,
}

#[derive(Deserialize)]
struct AnyObject {
    #[serde(default)]
    metadata: AnyMetadata,
    #[serde(default)]
    code: u16,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AnyMetadata {
    name: Box<str>,
    resource_version: Box<str>,
    annotations: Option<Marked>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Marked {
    #[serde(rename = "k8s.io/initial-events-end")]
    ends_list: Option<Box<str>>,
}

#[derive(Deserialize)]
struct Carrying<T> {
    object: T,
}

fn parse<T: DeserializeOwned>(line: &[u8]) -> serde_json::Result<Event<T>> {
    let Head { r#type, object } = serde_json::from_slice(line)?;
    let AnyMetadata {
        name,
        resource_version,
        annotations,
    } = object.metadata;
    let news = match &*r#type {
        "ADDED" | "MODIFIED" => News::Applied(serde_json::from_slice::<Carrying<T>>(line)?.object),
        "DELETED" => News::Deleted(name),
        "ERROR" => News::Error(Status {
            code: object.code,
            reason: object.reason,
            message: object.message,
        }),
        // What is not known yet says nothing, as clients are to take it.
        _ => News::Bookmark {
            ends_list: annotations.is_some_and(|a| a.ends_list.as_deref() == Some("true")),
        },
    };
    let version = Some(resource_version).filter(|version| !version.is_empty());
    Ok(Event { version, news })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Slice;

    #[tokio::test]
    async fn lines_are_read_whole_however_they_are_cut() {
        let text = concat!(
            r#"{"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"5"},"addressType":"IPv4"}}"#,
            "\n",
            r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"7","annotations":{"k8s.io/initial-events-end":"true"}}}}"#,
            "\n\n",
            r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"8","annotations":null}}}"#,
            "\n",
            r#"{"type":"DELETED","object":{"metadata":{"name":"a","resourceVersion":"9"}}}"#,
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
            let mut events = Events::new(chunks, Duration::from_secs(5));
            let mut said = Vec::new();
            while let Some(event) = events.next::<Slice>().await.unwrap() {
                let version = event.version.as_deref().unwrap_or("-").to_owned();
                said.push(match event.news {
                    News::Applied(slice) => format!("{version} applied {}", slice.metadata.name),
                    News::Deleted(name) => format!("{version} deleted {name}"),
                    News::Bookmark { ends_list } => format!("{version} bookmark {ends_list}"),
                    News::Error(status) => format!("{version} error {}", status.code),
                });
            }
            let expected = [
                "5 applied a",
                "7 bookmark true",
                "8 bookmark false",
                "9 deleted a",
                "- error 410",
            ];
            assert_eq!(said, expected, "{size}");
        }
    }
}
