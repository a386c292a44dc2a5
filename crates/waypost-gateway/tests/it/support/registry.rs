//! A registry that can be made unavailable, and that counts watches.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use tokio::sync::watch;
use waypost::provider::{MemoryProvider, NamesWatch, Provider, Watch};
use waypost::{ProviderError, ServiceName};

#[derive(Clone, Debug)]
pub(crate) struct FlakyRegistry {
    pub(crate) memory: MemoryProvider,
    down: watch::Sender<bool>,
    watches: Arc<AtomicUsize>,
}

impl FlakyRegistry {
    pub(crate) fn new() -> Self {
        Self {
            memory: MemoryProvider::new(),
            down: watch::Sender::new(false),
            watches: Arc::default(),
        }
    }

    pub(crate) fn set_down(&self, down: bool) {
        self.down.send_replace(down);
    }

    /// The number of service watches started so far.
    pub(crate) fn watches(&self) -> usize {
        self.watches.load(Ordering::SeqCst)
    }

    /// The stream while the registry is up, then an error.
    fn while_up<T: Send + 'static>(
        &self,
        watch: BoxStream<'static, Result<T, ProviderError>>,
    ) -> BoxStream<'static, Result<T, ProviderError>> {
        let mut down = self.down.subscribe();
        let is_down = async move {
            let _ = down.wait_for(|down| *down).await;
        };
        let error = ProviderError::unreachable("the test's registry", "connection refused");
        watch
            .take_until(is_down)
            .chain(stream::iter([Err(error)]))
            .boxed()
    }
}

impl Provider for FlakyRegistry {
    fn describe(&self) -> Arc<str> {
        "the test's registry".into()
    }

    fn watch(&self, service: &ServiceName) -> Watch {
        self.watches.fetch_add(1, Ordering::SeqCst);
        self.while_up(self.memory.watch(service))
    }

    fn watch_names(&self) -> NamesWatch {
        self.while_up(self.memory.watch_names())
    }
}
