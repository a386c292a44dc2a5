//! A provider that says what the test tells it to, and counts how often it is asked.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;
use waypost::provider::{NamesWatch, Provider, ServiceAnswer, Watch};
use waypost::{Instance, ProviderError, ServiceName};

type Item = Result<ServiceAnswer, ProviderError>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Scripted {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    watches: Mutex<Vec<mpsc::UnboundedSender<Item>>>,
    begun: AtomicUsize,
    /// Told to each watch as it begins; then, if it is an error, the watch ends.
    greeting: Mutex<Option<Item>>,
}

impl Scripted {
    /// What each watch that begins from now on hears first.
    pub(crate) fn greet(&self, item: Item) {
        *self.shared.greeting.lock().unwrap() = Some(item);
    }

    /// Tells all running watches.
    pub(crate) fn tell(&self, item: Item) {
        let mut watches = self.shared.watches.lock().unwrap();
        watches.retain(|watch| watch.send(item.clone()).is_ok());
    }

    /// Ends all running watches.
    pub(crate) fn hang_up(&self) {
        self.shared.watches.lock().unwrap().clear();
    }

    /// How many watches have begun so far.
    pub(crate) fn begun(&self) -> usize {
        self.shared.begun.load(Ordering::SeqCst)
    }

    /// How many watches somebody still listens to.
    pub(crate) fn running(&self) -> usize {
        let watches = self.shared.watches.lock().unwrap();
        watches.iter().filter(|watch| !watch.is_closed()).count()
    }
}

impl Provider for Scripted {
    fn describe(&self) -> Arc<str> {
        "script".into()
    }

    fn watch(&self, _: &ServiceName) -> Watch {
        self.shared.begun.fetch_add(1, Ordering::SeqCst);
        let (sender, receiver) = mpsc::unbounded_channel();
        let greeting = self.shared.greeting.lock().unwrap().clone();
        let ends = matches!(greeting, Some(Err(_)));
        if let Some(greeting) = greeting {
            sender.send(greeting).unwrap();
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
        stream::pending().boxed()
    }
}

pub(crate) fn auth() -> ServiceName {
    ServiceName::new("auth").unwrap()
}

pub(crate) fn instances(ids: &[&str]) -> Item {
    let each = ids.iter().map(|id| {
        let builder = Instance::builder(auth(), "10.0.0.1".parse().unwrap(), 80).id(*id);
        Arc::new(builder.build().unwrap())
    });
    Ok(ServiceAnswer::Instances(each.collect()))
}

pub(crate) fn refused() -> Item {
    Err(ProviderError::unreachable("script", "connection refused"))
}
