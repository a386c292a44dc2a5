//! A provider that reports the items that a test sends, and counts its watches.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use waypost::provider::{NamesWatch, Provider, ServiceAnswer, Watch};
use waypost::{Instance, ProviderError, ServiceName};

pub(crate) type Item = Result<ServiceAnswer, ProviderError>;

#[derive(Clone, Debug, Default)]
pub(crate) struct ScriptedProvider {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    watches: Mutex<Vec<mpsc::UnboundedSender<Item>>>,
    watches_started: AtomicUsize,
    first_item: Mutex<Option<Item>>,
    names: Mutex<Option<Result<BTreeSet<ServiceName>, ProviderError>>>,
}

impl ScriptedProvider {
    /// Sets the first item of each watch that starts from now on. A watch ends after a first item
    /// that is an error.
    pub(crate) fn set_first_item(&self, item: Item) {
        *self.shared.first_item.lock().unwrap() = Some(item);
    }

    /// Sets the answer of each watch of the list of services from now on. Before the first call they
    /// don't answer.
    pub(crate) fn set_names(&self, names: Result<&[&str], ProviderError>) {
        let parse = |name: &&str| ServiceName::new(name).unwrap();
        let names = names.map(|names| names.iter().map(parse).collect());
        *self.shared.names.lock().unwrap() = Some(names);
    }

    /// Sends an item to all open watches.
    pub(crate) fn send(&self, item: Item) {
        let mut watches = self.shared.watches.lock().unwrap();
        watches.retain(|watch| watch.send(item.clone()).is_ok());
    }

    /// Ends all open watches.
    pub(crate) fn end_watches(&self) {
        self.shared.watches.lock().unwrap().clear();
    }

    /// The number of watches that were started so far.
    pub(crate) fn watches_started(&self) -> usize {
        self.shared.watches_started.load(Ordering::SeqCst)
    }

    /// The number of watches that have not been dropped.
    pub(crate) fn open_watches(&self) -> usize {
        let watches = self.shared.watches.lock().unwrap();
        watches.iter().filter(|watch| !watch.is_closed()).count()
    }
}

impl Provider for ScriptedProvider {
    fn describe(&self) -> Arc<str> {
        "script".into()
    }

    fn watch(&self, _: &ServiceName) -> Watch {
        self.shared.watches_started.fetch_add(1, Ordering::SeqCst);
        let (sender, receiver) = mpsc::unbounded_channel();
        let first = self.shared.first_item.lock().unwrap().clone();
        let ends = matches!(first, Some(Err(_)));
        if let Some(first) = first {
            sender.send(first).unwrap();
        }
        if !ends {
            self.shared.watches.lock().unwrap().push(sender);
        }
        stream::unfold(receiver, |mut receiver| async move {
            Some((receiver.recv().await?, receiver))
        })
        .boxed()
    }

    fn watch_names(&self) -> NamesWatch {
        match self.shared.names.lock().unwrap().clone() {
            Some(Err(error)) => stream::iter([Err(error)]).boxed(),
            names => stream::iter(names).chain(stream::pending()).boxed(),
        }
    }
}

/// The service `auth`, which the tests look up.
pub(crate) fn auth() -> ServiceName {
    ServiceName::new("auth").unwrap()
}

/// An answer with these instances of `auth`.
pub(crate) fn instances(ids: &[&str]) -> Item {
    let each = ids.iter().map(|id| {
        let builder = Instance::builder(auth(), "10.0.0.1".parse().unwrap(), 80).id(*id);
        Arc::new(builder.build().unwrap())
    });
    Ok(ServiceAnswer::Instances(each.collect()))
}

/// The error of a registry that can't be reached.
pub(crate) fn refused() -> Item {
    Err(ProviderError::unreachable("script", "connection refused"))
}
