//! LIST and WATCH requests for one kind of object in one namespace or all.

use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use tokio::time::timeout;
use waypost_core::ProviderErrorKind;

use crate::client::{ApiClient, GetRequest};
use crate::error::RequestError;
use crate::resources::List;
use crate::scope::Selector;
use crate::watch_stream::{WatchEventContent, WatchStream, WatchStreamError};

/// Lists and watches one kind of object.
pub(super) struct ListWatch {
    pub(super) client: Arc<ApiClient>,
    /// The URL path of the collection.
    pub(super) path: String,
    /// Selects among the objects; `None` selects all.
    pub(super) selector: Option<Selector>,
}

/// A list that was received as the beginning of a watch.
pub(super) struct WatchList<T> {
    pub(super) objects: Vec<T>,
    pub(super) resource_version: Option<Box<str>>,
    pub(super) watch: WatchStream,
}

/// Why a list could not be received as the beginning of a watch.
pub(super) enum WatchListError {
    /// The server does not support it, or not at the moment; a LIST request may succeed.
    Unsupported,
    /// A LIST request would fail as well.
    Failed(RequestError),
}

impl ListWatch {
    /// The time limit for the server's response, and between two events of an initial list. It is
    /// shorter than the timeout of a look-up, so that the look-up can report this error.
    const RESPONSE_TIMEOUT: Duration = Duration::from_secs(4);
    /// How long a LIST request may take as a whole.
    const LIST_TIMEOUT: Duration = Duration::from_secs(30);
    /// The range of the random `timeoutSeconds` of a watch.
    const WATCH_SECONDS: std::ops::Range<u64> = 30..60;
    /// How long after its `timeoutSeconds` a watch may end.
    const WATCH_GRACE: Duration = Duration::from_secs(5);

    /// Opens a watch that continues from `resource_version`.
    pub(super) async fn watch(&self, resource_version: &str) -> Result<WatchStream, RequestError> {
        self.open(resource_version, &[]).await
    }

    /// Opens a watch that sends all objects first (WatchList, KEP-3157). It begins with any state
    /// that the server has cached, so it works even if the server can't reach etcd.
    pub(super) async fn watch_list<T: DeserializeOwned>(
        &self,
    ) -> Result<WatchList<T>, WatchListError> {
        let initial_events = [
            ("sendInitialEvents", "true"),
            ("resourceVersionMatch", "NotOlderThan"),
        ];
        let mut watch = self.open("0", &initial_events).await?;
        let mut objects = Vec::new();
        loop {
            // A server without WatchList never marks the end of the list.
            let event = timeout(Self::RESPONSE_TIMEOUT, watch.next::<T>())
                .await
                .map_err(|_| WatchListError::Unsupported)?
                .map_err(|error| WatchListError::Failed(self.stream_error(error)))?
                .ok_or_else(|| WatchListError::Failed(self.truncated()))?;
            match event.content {
                WatchEventContent::Applied(object) => objects.push(object),
                WatchEventContent::Bookmark {
                    ends_initial_list: true,
                } => {
                    return Ok(WatchList {
                        objects,
                        resource_version: event.resource_version,
                        watch,
                    });
                }
                WatchEventContent::Deleted(_) | WatchEventContent::Bookmark { .. } => {}
                WatchEventContent::Error(status) => {
                    return Err(self.client.status_error(status).into());
                }
            }
        }
    }

    /// Lists all objects at once, from the server's cache.
    pub(super) async fn list<T: DeserializeOwned>(&self) -> Result<List<T>, RequestError> {
        let mut query = vec![("resourceVersion", "0")];
        query.extend(self.selector_query());
        let get = GetRequest::new(&self.path, &query);
        self.client.get(get, Self::LIST_TIMEOUT).await
    }

    /// The error of a watch that could not be read any further.
    pub(super) fn stream_error(&self, error: WatchStreamError) -> RequestError {
        let error = match error {
            WatchStreamError::Connection(cause) => self.client.connection_error(cause),
            WatchStreamError::TimedOut => {
                let after = Self::WATCH_GRACE;
                let message = format!(
                    "the server did not end a watch within {} after its time",
                    humantime::format_duration(after)
                );
                self.client
                    .error(ProviderErrorKind::TimedOut { after }, message)
            }
            WatchStreamError::Decode(cause) => {
                let message = format!("unreadable watch event of {}: {cause}", self.path);
                self.client
                    .error(ProviderErrorKind::InvalidResponse, message)
            }
        };
        error.into()
    }

    async fn open(
        &self,
        resource_version: &str,
        parameters: &[(&str, &str)],
    ) -> Result<WatchStream, RequestError> {
        let seconds = fastrand::u64(Self::WATCH_SECONDS);
        let timeout_seconds = seconds.to_string();
        let mut query = vec![
            ("watch", "true"),
            ("allowWatchBookmarks", "true"),
            ("resourceVersion", resource_version),
            ("timeoutSeconds", &timeout_seconds),
        ];
        query.extend_from_slice(parameters);
        query.extend(self.selector_query());
        let get = GetRequest::new(&self.path, &query);
        let body = self.client.open(get, Self::RESPONSE_TIMEOUT).await?;
        let max_age = Duration::from_secs(seconds) + Self::WATCH_GRACE;
        Ok(WatchStream::new(body, max_age))
    }

    fn selector_query(&self) -> Option<(&str, &str)> {
        let (key, value) = self.selector.as_ref()?;
        Some((key, value))
    }

    fn truncated(&self) -> RequestError {
        let message = "the connection ended in the middle of a list".to_owned();
        self.client
            .error(ProviderErrorKind::Unreachable, message)
            .into()
    }
}

impl From<RequestError> for WatchListError {
    /// A server without WatchList answers 400 or 422, and one whose etcd is too old for it 500. The
    /// API documentation ("Streaming lists") tells clients to fall back to LIST on any error, which
    /// is pointless if the server is unreachable or overloaded or denies access.
    fn from(error: RequestError) -> Self {
        match error.code() {
            None | Some(401 | 403 | 429 | 503) => Self::Failed(error),
            Some(_) => Self::Unsupported,
        }
    }
}
