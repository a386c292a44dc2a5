//! Starts an informer for each namespace in which services are looked up, or one for all of them.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures_util::future::ready;
use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use waypost_core::provider::{NamesWatch, ServiceAnswer, Watch};
use waypost_core::{ProviderError, ServiceName};

use crate::client::ApiClient;
use crate::informer::Informer;
use crate::namespaces::Namespaces;
use crate::object_key::ObjectKey;
use crate::options::DiscoveryOptions;
use crate::rbac::RbacAdvisor;
use crate::service_ref::resolve_service;

/// One informer per namespace, or one for all, shared by all watches and stopped with the last of them.
pub(crate) struct InformerFactory {
    advisor: Arc<RbacAdvisor>,
    options: Arc<DiscoveryOptions>,
    running: Mutex<HashMap<Namespaces, Weak<Informer>>>,
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
        let service = resolve_service(name, &options.namespace, &options.cluster_domain);
        let Some(service) = service else {
            // No Service can ever have this name.
            let unknown = stream::iter([Ok(ServiceAnswer::Unknown)]);
            return unknown.chain(stream::pending()).boxed();
        };
        let (factory, name) = (Arc::clone(self), name.clone());
        // Starting an informer spawns a task, so it must wait until the stream is polled.
        let start = async move {
            let namespaces = factory.namespaces_with(&service);
            let informer = factory.informer(&namespaces);
            Informer::watch(&informer, name, service, factory.stopped())
        };
        start.into_stream().flatten().boxed()
    }

    pub(crate) fn watch_names(self: &Arc<Self>) -> NamesWatch {
        let listed = self.options.listed_namespaces.iter();
        all_names(listed.map(|namespaces| self.watch_names_in(namespaces)))
    }

    /// Watches the names of the Services in these namespaces, as [`watch`](Self::watch) accepts them.
    fn watch_names_in(self: &Arc<Self>, namespaces: &Namespaces) -> NamesWatch {
        let (factory, namespaces) = (Arc::clone(self), namespaces.clone());
        let default_namespace = Arc::clone(&self.options.namespace);
        let start = async move {
            let informer = factory.informer(&namespaces);
            Informer::watch_names(&informer, factory.stopped())
        };
        let valid = move |names: BTreeSet<ObjectKey>| {
            let names = names.iter().filter_map(|ObjectKey { namespace, name }| {
                if *namespace == default_namespace {
                    ServiceName::new(name).ok()
                } else {
                    ServiceName::new(&format!("{name}.{namespace}")).ok()
                }
            });
            names.collect()
        };
        start.into_stream().flatten().map_ok(valid).boxed()
    }

    pub(crate) fn lists_all_namespaces(&self) -> bool {
        self.options.listed_namespaces.contains(&Namespaces::All)
    }

    /// The namespaces that the informer of a Service follows. If all are listed, one informer also serves all
    /// look-ups: two watches cost the server less than two per namespace.
    fn namespaces_with(&self, service: &ObjectKey) -> Namespaces {
        if self.lists_all_namespaces() {
            Namespaces::All
        } else {
            Namespaces::One(Arc::clone(&service.namespace))
        }
    }

    fn informer(&self, namespaces: &Namespaces) -> Arc<Informer> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let informer = running.get(namespaces).and_then(Weak::upgrade);
        if let Some(informer) = informer.filter(|informer| informer.is_running()) {
            return informer;
        }
        running.retain(|_, informer| informer.strong_count() > 0);
        let informer = Arc::new(Informer::start(&self.advisor, &self.options, namespaces));
        running.insert(namespaces.clone(), Arc::downgrade(&informer));
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
