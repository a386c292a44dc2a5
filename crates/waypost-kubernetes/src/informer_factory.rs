//! Starts an informer for each namespace in which services are looked up.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use waypost_core::provider::{NamesWatch, ServiceAnswer, Watch};
use waypost_core::{ProviderError, ServiceName};

use crate::client::ApiClient;
use crate::informer::Informer;
use crate::options::DiscoveryOptions;
use crate::rbac::RbacAdvisor;
use crate::service_ref::ServiceRef;

/// One informer per namespace, shared by all watches of that namespace and stopped with the last.
pub(crate) struct InformerFactory {
    advisor: Arc<RbacAdvisor>,
    options: Arc<DiscoveryOptions>,
    running: Mutex<HashMap<Arc<str>, Weak<Informer>>>,
}

impl InformerFactory {
    pub(crate) fn new(advisor: Arc<RbacAdvisor>, options: DiscoveryOptions) -> Self {
        Self {
            advisor,
            options: Arc::new(options),
            running: Mutex::default(),
        }
    }

    pub(crate) fn client(&self) -> &Arc<ApiClient> {
        self.advisor.client()
    }

    pub(crate) fn watch(self: &Arc<Self>, name: &ServiceName) -> Watch {
        let options = &self.options;
        let service = ServiceRef::resolve(name, &options.namespace, &options.cluster_domain);
        let Some(service) = service else {
            // No Service can ever have this name.
            let unknown = stream::iter([Ok(ServiceAnswer::Unknown)]);
            return unknown.chain(stream::pending()).boxed();
        };
        let (factory, name) = (Arc::clone(self), name.clone());
        // Starting an informer spawns a task, so it must wait until the stream is polled.
        let start = async move {
            let informer = factory.informer(&service.namespace);
            Informer::watch(&informer, name, service.service, factory.stopped())
        };
        start.into_stream().flatten().boxed()
    }

    pub(crate) fn watch_names(self: &Arc<Self>) -> NamesWatch {
        let factory = Arc::clone(self);
        let start = async move {
            let informer = factory.informer(&factory.options.namespace);
            Informer::watch_names(&informer, factory.stopped())
        };
        let valid = |names: BTreeSet<Arc<str>>| {
            let names = names.iter().filter_map(|name| ServiceName::new(name).ok());
            names.collect()
        };
        start.into_stream().flatten().map_ok(valid).boxed()
    }

    fn informer(&self, namespace: &Arc<str>) -> Arc<Informer> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let informer = running.get(namespace).and_then(Weak::upgrade);
        if let Some(informer) = informer.filter(|informer| informer.is_running()) {
            return informer;
        }
        running.retain(|_, informer| informer.strong_count() > 0);
        let informer = Arc::new(Informer::start(&self.advisor, &self.options, namespace));
        running.insert(Arc::clone(namespace), Arc::downgrade(&informer));
        informer
    }

    /// The last error of the watches of an informer that was stopped.
    fn stopped(&self) -> ProviderError {
        let provider = Arc::clone(self.client().describe());
        ProviderError::unreachable(provider, "the watch ended with its tokio runtime")
    }
}
