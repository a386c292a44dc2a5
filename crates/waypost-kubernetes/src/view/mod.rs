//! All that is followed in one namespace: one watch of EndpointSlices and one of Services, however
//! many services are asked for, and a pulse that tells whether the watches can be believed.

mod answers;
mod keeper;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{StreamExt, TryStreamExt};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use waypost_core::provider::{Answer, Watch};
use waypost_core::{Instance, ProviderError, ServiceName};

use self::keeper::Keeper;
use super::connection::Connection;
use super::said::{Said, follow};
use super::views::Setup;

/// A running view; it ends when nobody holds it any more.
pub(super) struct View {
    asked: Arc<Asked>,
    task: JoinHandle<()>,
}

/// Instances that many may share before each gets a list of its own.
type Shared = Option<Arc<Vec<Arc<Instance>>>>;

type Names = BTreeSet<Arc<str>>;

/// The Service that a name means, and where the answers go.
type Question = (Arc<str>, watch::Sender<Said<Shared>>);

/// All that is asked for.
#[derive(Default)]
struct Asked {
    services: Mutex<HashMap<ServiceName, Question>>,
    names: Mutex<Option<watch::Sender<Said<Names>>>>,
    changed: Notify,
}

impl View {
    pub(super) fn begin(
        connection: &Arc<Connection>,
        setup: &Arc<Setup>,
        namespace: &Arc<str>,
    ) -> Arc<Self> {
        let asked = Arc::new(Asked::default());
        let keeper = Keeper::new(connection, setup, namespace, Arc::clone(&asked));
        Arc::new(Self {
            asked,
            task: tokio::spawn(keeper.run()),
        })
    }

    pub(super) fn is_running(&self) -> bool {
        !self.task.is_finished()
    }

    pub(super) fn watch(
        self: &Arc<Self>,
        name: ServiceName,
        service: Arc<str>,
        ended: ProviderError,
    ) -> Watch {
        let said = {
            let mut services = lock(&self.asked.services);
            let (_, sender) = services
                .entry(name)
                .or_insert_with(|| (service, watch::Sender::default()));
            sender.subscribe()
        };
        self.asked.changed.notify_one();
        follow(said, ended, Arc::clone(self))
            .map_ok(|instances| match instances {
                Some(instances) => Answer::Instances(instances.to_vec()),
                None => Answer::Unknown,
            })
            .boxed()
    }

    pub(super) fn watch_names(
        self: &Arc<Self>,
        ended: ProviderError,
    ) -> futures_util::stream::BoxStream<'static, Result<Names, ProviderError>> {
        let said = lock(&self.asked.names).get_or_insert_default().subscribe();
        self.asked.changed.notify_one();
        follow(said, ended, Arc::clone(self))
    }
}

impl Drop for View {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Ends all streams when the task does.
struct HangUp(Arc<Asked>);

impl Drop for HangUp {
    fn drop(&mut self) {
        lock(&self.0.services).clear();
        lock(&self.0.names).take();
    }
}

/// What is locked is whole at any moment.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
