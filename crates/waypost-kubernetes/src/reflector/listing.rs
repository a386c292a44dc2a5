//! The list at the beginning, and after a 410.

use std::time::Duration;

use tokio::time::timeout;
use waypost_core::ProviderErrorKind;

use super::Change;
use super::work::Work;
use crate::connection::Ask;
use crate::events::{Event, News};
use crate::fault::Fault;
use crate::wire::{List, Object};

/// Why a list did not come as a watch.
enum NoStream {
    /// The server doesn't do that, or not now, so the list is to be asked for in the old way.
    Unknown,
    /// In the old way it would fail, too.
    Failed(Fault),
}

impl From<Fault> for NoStream {
    /// A server without the feature says 400 or 422, one with an etcd that is too old for it 500,
    /// and whatever else it says, the old way may do ("Streaming lists" has clients fall back on
    /// any error). Not so if it says nothing, or that it is us or the load.
    fn from(fault: Fault) -> Self {
        match fault.code() {
            0 | 401 | 403 | 429 | 503 => Self::Failed(fault),
            _ => Self::Unknown,
        }
    }
}

impl Work {
    /// For how long a server may be silent between the parts of a list. Less than look-ups wait, so
    /// that they can tell what is wrong.
    pub(super) const PATIENCE: Duration = Duration::from_secs(4);
    /// For how long a LIST may take as a whole.
    const LIST_DEADLINE: Duration = Duration::from_secs(30);

    pub(super) async fn list<T: Object>(&mut self) -> Result<Change<T>, Fault> {
        // Who may not watch may be allowed to list, and the other way round. At first both are
        // tried; then one of them each time, so that a refusal costs one request.
        if self.can_stream && self.refusals.is_multiple_of(2) {
            match self.streamed_list().await {
                Ok(items) => {
                    self.succeeded();
                    return Ok(Change::Whole(items));
                }
                Err(NoStream::Unknown) => self.can_stream = false,
                Err(NoStream::Failed(fault)) if fault.is_refusal() && self.refusals == 0 => {
                    self.refusals = 1;
                }
                Err(NoStream::Failed(fault)) => return Err(fault),
            }
        }
        let items = self.plain_list().await?;
        match self.resume().await {
            Ok(()) => {
                self.succeeded();
                Ok(Change::Whole(items))
            }
            // The list stands, but nobody tells how it changes.
            Err(fault) => {
                self.position = None;
                Ok(Change::Frozen(items, fault))
            }
        }
    }

    /// A watch that tells first what there is, and then how it changes. Any state will do that the
    /// server has, so that it begins even while the server has lost its etcd.
    async fn streamed_list<T: Object>(&mut self) -> Result<Vec<T>, NoStream> {
        let opened = self.open(
            "0",
            &[
                ("sendInitialEvents", "true"),
                ("resourceVersionMatch", "NotOlderThan"),
            ],
        );
        let mut events = opened.await?;
        let mut items = Vec::new();
        loop {
            // A server that doesn't know this sort of list never says that it is at its end.
            let next = timeout(Self::PATIENCE, events.next::<T>()).await;
            let next = next.map_err(|_| NoStream::Unknown)?;
            let broken = |broken| NoStream::Failed(self.broken(broken));
            let Some(Event { version, news }) = next.map_err(broken)? else {
                return Err(NoStream::Failed(self.cut_off()));
            };
            match news {
                News::Applied(item) => items.push(item),
                // All is known up to here, and from here on it is followed.
                News::Bookmark { ends_list: true } => {
                    self.events = Some(events);
                    if let Some(version) = version {
                        self.marks.set(&version);
                        self.position = Some(version);
                    }
                    return Ok(items);
                }
                News::Deleted(_) | News::Bookmark { .. } => {}
                News::Error(status) => {
                    return Err(self.connection.said(status).into());
                }
            }
        }
    }

    /// A LIST of what the server has in its cache, all in one.
    async fn plain_list<T: Object>(&mut self) -> Result<Vec<T>, Fault> {
        let mut query = vec![("resourceVersion", "0")];
        query.extend(
            self.only
                .as_ref()
                .map(|(key, value)| (*key, value.as_str())),
        );
        let ask = Ask::new(&self.path, &query);
        let list = self.connection.get::<List<T>>(ask, Self::LIST_DEADLINE);
        // What it couldn't do a while ago, another server behind the same address may do now.
        let list = list.await.inspect_err(|_| self.can_stream = true)?;
        self.marks.set(&list.metadata.resource_version);
        self.position = Some(list.metadata.resource_version);
        Ok(list.items.unwrap_or_default())
    }

    fn cut_off(&self) -> Fault {
        let message = "the list broke off".to_owned();
        self.connection
            .error(ProviderErrorKind::Unreachable, message)
            .into()
    }
}
