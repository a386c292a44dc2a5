//! One kind of object of one namespace, listed once and followed from there on.
//!
//! What is listed begins as a watch that tells all there is first (WatchList, KEP-3157), which is
//! the cheapest for the server and works while its etcd doesn't. Where the server can't do that, it
//! is a LIST out of the server's cache and a watch from there on. The rules of following are those
//! of "Kubernetes API Concepts", "Efficient detection of changes":
//!
//! - A list counts when it is whole. An attempt that fails on the way changes nothing.
//! - A watch that ends is begun again where it ended. It is asked to end after 30 to 60 s, so that a
//!   connection on which nothing comes any more is noticed by then.
//! - 410 means that the place to go on from is no longer kept: all is listed again, at once.
//! - Other failures are told, and tried again after a growing pause, up to 30 s. A refusal costs one
//!   request each time.

mod following;
mod listing;
mod marks;
mod work;

use std::sync::Arc;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use tokio::sync::watch;

pub(super) use self::marks::{Marks, numeric};
use self::work::Work;
use super::connection::Connection;
use super::fault::Fault;
use super::wire::Object;

/// What a reflector tells.
#[derive(Debug)]
pub(super) enum Change<T> {
    /// All there is; what isn't in it is gone.
    Whole(Vec<T>),
    /// The same, and nobody will tell how it changes.
    Frozen(Vec<T>, Fault),
    /// An object came or changed.
    Applied(T),
    /// The object of this name is gone.
    Deleted(Box<str>),
    /// It follows again; nothing else is new.
    Live,
    /// An attempt failed. What was told before is all that is known.
    Failed(Fault),
}

/// Which objects to follow.
#[derive(Clone, Debug)]
pub(super) struct Selection {
    pub(super) namespace: Arc<str>,
    /// `labelSelector` or `fieldSelector` and its value, where not all are wanted.
    pub(super) only: Option<(&'static str, String)>,
}

impl Selection {
    pub(super) fn path<T: Object>(&self) -> String {
        T::path(&self.namespace)
    }
}

/// A running reflector; it ends when it is dropped.
pub(super) struct Reflector<T> {
    changes: BoxStream<'static, Change<T>>,
    /// How often it was told to start over. News of the same number means to resume.
    orders: watch::Sender<u64>,
}

impl<T: Object> Reflector<T> {
    pub(super) fn begin(
        connection: Arc<Connection>,
        selection: &Selection,
        marks: Arc<Marks>,
    ) -> Self {
        let (orders, taken) = watch::channel(0);
        let path = selection.path::<T>();
        let work = Work::new(connection, path, selection, marks, taken);
        let changes = stream::unfold(work, |mut work| async move {
            let change = work.next::<T>().await;
            Some((change, work))
        });
        Self {
            changes: changes.boxed(),
            orders,
        }
    }

    /// The next change. May be dropped and called again.
    pub(super) async fn next(&mut self) -> Change<T> {
        match self.changes.next().await {
            Some(change) => change,
            None => std::future::pending().await,
        }
    }

    /// Opens the watch again where it is, now.
    pub(super) fn resume(&self) {
        self.orders.send_modify(|_| ());
    }

    /// Lists all again, now.
    pub(super) fn start_over(&self) {
        self.orders.send_modify(|times| *times += 1);
    }
}
