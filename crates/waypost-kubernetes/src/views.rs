use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures_util::{FutureExt, StreamExt, TryStreamExt, stream};
use waypost_core::provider::{Answer, NamesWatch, Watch};
use waypost_core::{ProviderError, ServiceName};

use super::connection::Connection;
use super::place::Place;
use super::view::View;

/// How Services are looked for and become instances.
#[derive(Debug)]
pub(super) struct Setup {
    /// For names that don't say theirs.
    pub(super) namespace: Arc<str>,
    pub(super) cluster_domain: Arc<str>,
    /// Annotations that become metadata.
    pub(super) annotations: Vec<Box<str>>,
    /// The name of the port to call.
    pub(super) port: Option<Box<str>>,
}

/// One view per namespace, as long as somebody looks.
pub(super) struct Views {
    connection: Arc<Connection>,
    setup: Arc<Setup>,
    running: Mutex<HashMap<Arc<str>, Weak<View>>>,
}

impl Views {
    pub(super) fn new(connection: Arc<Connection>, setup: Setup) -> Arc<Self> {
        Arc::new(Self {
            connection,
            setup: Arc::new(setup),
            running: Mutex::default(),
        })
    }

    pub(super) fn connection(&self) -> &Arc<Connection> {
        &self.connection
    }

    pub(super) fn watch(self: &Arc<Self>, service: &ServiceName) -> Watch {
        let setup = &self.setup;
        let place = Place::of(service, &setup.namespace, &setup.cluster_domain);
        let Some(place) = place else {
            // No Service can have such a name, and none ever will.
            let unknown = stream::iter([Ok(Answer::Unknown)]);
            return unknown.chain(stream::pending()).boxed();
        };
        let (views, name) = (Arc::clone(self), service.clone());
        // A view is a task, so it begins when somebody listens, not before.
        let begin = async move {
            let view = views.view(&place.namespace);
            let ended = views.ended();
            View::watch(&view, name, place.service, ended)
        };
        begin.into_stream().flatten().boxed()
    }

    pub(super) fn watch_names(self: &Arc<Self>) -> NamesWatch {
        let views = Arc::clone(self);
        let begin = async move {
            let view = views.view(&views.setup.namespace);
            let ended = views.ended();
            View::watch_names(&view, ended)
        };
        let names = begin.into_stream().flatten();
        let valid = |names: BTreeSet<Arc<str>>| {
            let names = names.iter().filter_map(|name| ServiceName::new(name).ok());
            names.collect()
        };
        names.map_ok(valid).boxed()
    }

    fn view(&self, namespace: &Arc<str>) -> Arc<View> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let view = running.get(namespace).and_then(Weak::upgrade);
        if let Some(view) = view.filter(|view| view.is_running()) {
            return view;
        }
        running.retain(|_, view| view.strong_count() > 0);
        let view = View::begin(&self.connection, &self.setup, namespace);
        running.insert(Arc::clone(namespace), Arc::downgrade(&view));
        view
    }

    fn ended(&self) -> ProviderError {
        let description = Arc::clone(self.connection.describe());
        ProviderError::unreachable(description, "the watch ended with its runtime")
    }
}
