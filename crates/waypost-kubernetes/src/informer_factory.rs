//! Starts an informer for each namespace in which services are looked up.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures_util::future::ready;
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
        let options = &self.options;
        let own = std::iter::once(&options.namespace);
        let others = options.listed_namespaces.iter();
        let others = others.filter(|namespace| **namespace != options.namespace);
        let namespaces = own.chain(others);
        all_names(namespaces.map(|namespace| self.watch_names_in(namespace)))
    }

    /// Watches the names of the Services in a namespace, as [`watch`](Self::watch) accepts them.
    fn watch_names_in(self: &Arc<Self>, namespace: &Arc<str>) -> NamesWatch {
        let (factory, namespace) = (Arc::clone(self), Arc::clone(namespace));
        let is_default = namespace == factory.options.namespace;
        let start = {
            let namespace = Arc::clone(&namespace);
            async move {
                let informer = factory.informer(&namespace);
                Informer::watch_names(&informer, factory.stopped())
            }
        };
        let valid = move |names: BTreeSet<Arc<str>>| {
            let names = names.iter().filter_map(|name| {
                if is_default {
                    ServiceName::new(name).ok()
                } else {
                    ServiceName::new(&format!("{name}.{namespace}")).ok()
                }
            });
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

/// The names of all watches together, once each has answered. The error of one is reported, and its names
/// stay as they were. Ends with the first watch that ends, since its names would no longer change.
fn all_names(watches: impl Iterator<Item = NamesWatch>) -> NamesWatch {
    let watches: Vec<_> = watches
        .enumerate()
        .map(|(index, watch)| {
            let items = watch.map(move |item| (index, Some(item)));
            items.chain(stream::iter([(index, None)])).boxed()
        })
        .collect();
    let latest: Vec<LatestNames> = watches.iter().map(|_| LatestNames::default()).collect();
    let items = stream::select_all(watches).scan(latest, |latest, (index, item)| {
        let Some(item) = item else {
            return ready(None);
        };
        let error = match item {
            Err(error) => {
                latest[index].error = Some(error.clone());
                return ready(Some(vec![Err(error)]));
            }
            Ok(names) => {
                latest[index] = LatestNames {
                    names: Some(names),
                    error: None,
                };
                latest.iter().find_map(|latest| latest.error.clone())
            }
        };
        let all: Option<Vec<_>> = latest.iter().map(|latest| latest.names.as_ref()).collect();
        let all = all.map(|all| Ok(all.into_iter().flatten().cloned().collect()));
        // The answer of one namespace doesn't end the outage of another.
        ready(Some(all.into_iter().chain(error.map(Err)).collect()))
    });
    items.flat_map(stream::iter).boxed()
}

/// The names of one namespace, and the error since, if there is one.
#[derive(Default)]
struct LatestNames {
    names: Option<BTreeSet<ServiceName>>,
    error: Option<ProviderError>,
}
