//! Lists one kind of object, in one namespace or in all, and follows its changes.
//!
//! A list is received as the beginning of a watch (WatchList, KEP-3157), which is cheapest for the
//! server and works even while etcd is down. If the server does not support that, a LIST from the
//! server's cache is followed by a watch. The rules are those of "Kubernetes API Concepts", "Efficient
//! detection of changes":
//!
//! - A list takes effect when it is complete. An attempt that fails before that changes nothing.
//! - A watch that ends is reopened from the latest resource version. Each watch has a timeout of 30 to
//!   60 s, so that a dead connection is noticed by then.
//! - 410 Gone means that the resource version has expired: everything is listed again at once.
//! - Other failures are reported and retried with exponential backoff, at most 30 s. A retry after
//!   access was denied costs one request.

mod driver;
mod list_watch;
mod progress;

use std::sync::Arc;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

pub(crate) use self::driver::ReflectorEvent;
use self::driver::{Advice, Driver};
use self::list_watch::ListWatch;
pub(crate) use self::progress::{WatchProgress, parse_resource_version};
use crate::client::ApiClient;
use crate::namespaces::Namespaces;
use crate::rbac::RbacAdvisor;
use crate::resources::Resource;
use crate::scope::Selector;

/// Lists and follows one kind of object, until it is dropped.
pub(crate) struct Reflector<T> {
    events: BoxStream<'static, ReflectorEvent<T>>,
    /// See [`Driver`].
    relists: watch::Sender<u64>,
}

impl<T: DeserializeOwned + Send + 'static> Reflector<T> {
    /// Follows objects that discovery needs. Errors say which permissions for it are missing.
    pub(crate) fn for_discovery(
        advisor: &Arc<RbacAdvisor>,
        namespaces: &Namespaces,
        selector: Option<Selector>,
        progress: &Arc<WatchProgress>,
    ) -> Self
    where
        T: Resource,
    {
        let list_watch = ListWatch {
            client: Arc::clone(advisor.client()),
            path: T::path_in(namespaces),
            selector,
        };
        let advice = Advice {
            advisor: Arc::clone(advisor),
            namespaces: namespaces.clone(),
        };
        Self::start(list_watch, Some(advice), progress)
    }

    /// Follows the objects of a collection, which is the URL path `path`.
    pub(crate) fn new(
        client: &Arc<ApiClient>,
        path: String,
        progress: &Arc<WatchProgress>,
    ) -> Self {
        let list_watch = ListWatch {
            client: Arc::clone(client),
            path,
            selector: None,
        };
        Self::start(list_watch, None, progress)
    }

    fn start(list_watch: ListWatch, advice: Option<Advice>, progress: &Arc<WatchProgress>) -> Self {
        let (relists, requested) = watch::channel(0);
        let driver = Driver::new(list_watch, advice, Arc::clone(progress), requested);
        let events = stream::unfold(driver, |mut driver| async move {
            let event = driver.next::<T>().await;
            Some((event, driver))
        });
        Self {
            events: events.boxed(),
            relists,
        }
    }

    /// The next event. Cancel safe.
    pub(crate) async fn next(&mut self) -> ReflectorEvent<T> {
        match self.events.next().await {
            Some(event) => event,
            None => std::future::pending().await,
        }
    }

    /// Reopens the watch from the latest resource version, without a pause.
    pub(crate) fn reopen_watch(&self) {
        self.relists.send_modify(|_| ());
    }

    /// Lists everything again, without a pause.
    pub(crate) fn relist(&self) {
        self.relists.send_modify(|count| *count += 1);
    }
}
