//! Follows the EndpointSlices and Services of one namespace or all, with one watch for each kind, however
//! many services are looked up.
//!
//! ```text
//!  reflectors ──┐                                        ┌─► publisher ──► subscriptions
//!  liveness   ──┼─► event ─► State::apply ─► State ──────┤
//!  subscribers ─┘                                        └─► actions for reflectors and liveness
//! ```
//!
//! [`state`] holds all decisions: it is a function of the events so far. [`task`] waits for events,
//! carries out actions and limits the rate of publishing.

mod publisher;
mod state;
mod subscriptions;
mod task;

use std::sync::Arc;

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt};
use tokio::task::JoinHandle;
use waypost_core::provider::{ServiceAnswer, Watch};
use waypost_core::{ProviderError, ServiceName};

use self::state::Names;
use self::subscriptions::Subscriptions;
use self::task::Task;
use crate::latest;
use crate::namespaces::Namespaces;
use crate::object_key::ObjectKey;
use crate::options::DiscoveryOptions;
use crate::rbac::RbacAdvisor;

/// A running informer; it stops when it is dropped.
pub(crate) struct Informer {
    subscriptions: Arc<Subscriptions>,
    task: JoinHandle<()>,
}

impl Informer {
    /// Spawns the informer on the current tokio runtime.
    pub(crate) fn start(
        advisor: &Arc<RbacAdvisor>,
        options: &Arc<DiscoveryOptions>,
        namespaces: &Namespaces,
    ) -> Self {
        let subscriptions = Arc::new(Subscriptions::default());
        let task = Task::new(advisor, options, namespaces, &subscriptions);
        Self {
            subscriptions,
            task: tokio::spawn(task.run()),
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        !self.task.is_finished()
    }

    /// Watches a Service. The stream keeps the informer running. If the informer stops anyway, the
    /// stream ends with `stopped`.
    pub(crate) fn watch(
        self: &Arc<Self>,
        name: ServiceName,
        service: ObjectKey,
        stopped: ProviderError,
    ) -> Watch {
        let answers = self.subscriptions.subscribe(name, service);
        latest::subscribe(answers, stopped, Arc::clone(self))
            .map_ok(|instances| match instances {
                Some(instances) => ServiceAnswer::Instances(instances.to_vec()),
                None => ServiceAnswer::Unknown,
            })
            .boxed()
    }

    /// Watches the names of all Services, as [`Self::watch`] does one of them.
    pub(crate) fn watch_names(
        self: &Arc<Self>,
        stopped: ProviderError,
    ) -> BoxStream<'static, Result<Names, ProviderError>> {
        let names = self.subscriptions.subscribe_names();
        latest::subscribe(names, stopped, Arc::clone(self))
    }
}

impl Drop for Informer {
    fn drop(&mut self) {
        self.task.abort();
    }
}
