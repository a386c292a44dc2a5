//! Resolves the name of an agent, always to the same address as long as that address works.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::vec;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use hyper_util::client::legacy::connect::dns::Name;
use tower_service::Service;

/// Resolves the name in an agent's address.
///
/// A name may have the addresses of several agents, each with its own registrations. If each connection
/// chose an address independently, a service could be registered with one agent and send its heartbeats
/// to another. So the address that was used last is always tried first. If it doesn't respond and another
/// one does, the other one is used from then on.
#[derive(Clone)]
pub(super) struct AgentResolver {
    shared: Arc<Shared>,
}

struct Shared {
    lookup: Box<Lookup>,
    chosen: Mutex<Option<IpAddr>>,
}

/// Finds the addresses of a name.
type Lookup = dyn Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync;

impl AgentResolver {
    /// Resolves names as the system does.
    pub(super) fn system() -> Self {
        Self::with_lookup(|name| {
            async move {
                let addresses = tokio::net::lookup_host((name, 0)).await?;
                Ok(addresses.map(|address| address.ip()).collect())
            }
            .boxed()
        })
    }

    /// Resolves each name to this address.
    pub(super) fn fixed(address: IpAddr) -> Self {
        Self::with_lookup(move |_| std::future::ready(Ok(vec![address])).boxed())
    }

    pub(super) fn with_lookup(
        lookup: impl Fn(String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> + Send + Sync + 'static,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                lookup: Box::new(lookup),
                chosen: Mutex::default(),
            }),
        }
    }

    /// The address of the agent that is used now; `None` before the first connection to a name.
    pub(super) fn chosen(&self) -> Option<IpAddr> {
        *self.shared.chosen()
    }

    /// Records the address that has answered. Returns the address used before, if it was a different
    /// one.
    pub(super) fn answered(&self, address: IpAddr) -> Option<IpAddr> {
        let mut chosen = self.shared.chosen();
        let before = chosen.filter(|before| *before != address)?;
        *chosen = Some(address);
        Some(before)
    }
}

impl Shared {
    fn chosen(&self) -> MutexGuard<'_, Option<IpAddr>> {
        self.chosen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All addresses of the name, the chosen one first.
    async fn resolve(&self, name: String) -> io::Result<vec::IntoIter<SocketAddr>> {
        let mut addresses = (self.lookup)(name).await?;
        let mut chosen = self.chosen();
        if chosen.is_none() {
            *chosen = addresses.first().copied();
        }
        // The sort is stable, so the others keep their order.
        addresses.sort_by_key(|address| Some(*address) != *chosen);
        // The port is set by the connector.
        let addresses = addresses.into_iter().map(|address| (address, 0).into());
        Ok(addresses.collect::<Vec<_>>().into_iter())
    }
}

impl Service<Name> for AgentResolver {
    type Response = vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let shared = Arc::clone(&self.shared);
        async move { shared.resolve(name.as_str().to_owned()).await }.boxed()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const A: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 1));
    const B: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 2));

    #[tokio::test]
    async fn the_address_that_was_used_comes_first_until_another_one_answers() {
        let turn = AtomicUsize::new(0);
        // Like many DNS servers, this one rotates the addresses.
        let resolver = AgentResolver::with_lookup(move |_| {
            let mut addresses = vec![A, B];
            addresses.rotate_left(turn.fetch_add(1, Ordering::SeqCst) % 2);
            std::future::ready(Ok(addresses)).boxed()
        });
        let first = async || {
            let mut addresses = resolver.shared.resolve("consul".into()).await.unwrap();
            addresses.next().unwrap().ip()
        };
        for _ in 0..4 {
            assert_eq!(first().await, A);
        }
        assert_eq!(resolver.answered(A), None);
        assert_eq!(resolver.answered(B), Some(A));
        for _ in 0..4 {
            assert_eq!(first().await, B);
        }
    }
}
