//! Connections to instances: one pool per worker, so that no lock is shared between cores.

mod call;
mod connect;
mod connection;
mod peer;
mod stream;
mod tls;
mod url;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use waypost::Instance;

pub(crate) use call::{WholeResponse, begin_call, call};
pub(crate) use connection::{Http1, poll_frame};
pub(crate) use peer::{Channel, Peer};
pub(crate) use tls::ClientTls;
pub(crate) use url::HttpUrl;

use crate::config::Config;

/// How long an idle connection is kept. Many servers close idle connections after 5 s; closing them
/// first avoids sending a request on a connection that the server is just closing.
const MAX_IDLE: Duration = Duration::from_secs(4);
/// How long a worker keeps its data about an instance that gets no requests.
const FORGET_AFTER: Duration = Duration::from_secs(60);

/// The connections of one worker to all instances.
#[derive(Debug)]
pub(crate) struct Upstream {
    /// The key is the address of the `Arc<Instance>`. The peer holds the `Arc`, so no other instance can
    /// get the same address. If the registry changes an instance, that is a new peer.
    peers: Mutex<BTreeMap<usize, Arc<Peer>>>,
    cluster_only: bool,
    tls: Arc<ClientTls>,
}

impl Upstream {
    pub(crate) fn new(config: &Config, tls: Arc<ClientTls>) -> Self {
        Self {
            peers: Mutex::default(),
            cluster_only: config.cluster_addresses_only,
            tls,
        }
    }

    /// This worker's data about an instance.
    pub(crate) fn peer(&self, instance: &Arc<Instance>) -> Arc<Peer> {
        self.peer_within(instance, self.cluster_only)
    }

    /// This worker's data about the server of a URL, which may be at any address.
    pub(crate) fn peer_of(&self, url: &HttpUrl) -> Arc<Peer> {
        self.peer_within(&url.instance, false)
    }

    fn peer_within(&self, instance: &Arc<Instance>, cluster_only: bool) -> Arc<Peer> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let peer = peers
            .entry(Arc::as_ptr(instance) as usize)
            .or_insert_with(|| {
                Arc::new(Peer::new(
                    Arc::clone(instance),
                    Arc::clone(&self.tls),
                    cluster_only,
                ))
            });
        Arc::clone(peer)
    }

    /// Closes connections that have been idle for too long. `now` is in milliseconds since the worker
    /// started. Returns whether there are any peers.
    pub(crate) fn close_idle(&self, now: u64) -> bool {
        let since = |limit: Duration| now.saturating_sub(limit.as_millis() as u64);
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.retain(|_, peer| {
            peer.close_idle(since(MAX_IDLE));
            Arc::strong_count(peer) > 1 || peer.used_at() >= since(FORGET_AFTER)
        });
        !peers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_instance_is_forgotten_once_it_has_had_no_requests_for_a_minute() {
        let url = HttpUrl::parse("http://192.0.2.1:80").unwrap();
        let tls = Arc::new(ClientTls::new(None).unwrap());
        let upstream = Upstream::new(&Config::default(), tls);
        assert!(!upstream.close_idle(0));
        let peer = upstream.peer_of(&url);
        assert!(upstream.close_idle(1_000_000), "it has a request");
        drop(peer);
        assert!(upstream.close_idle(60_000));
        assert!(!upstream.close_idle(60_001));
    }

    #[tokio::test]
    async fn an_instance_has_one_pool_of_connections() {
        let url = HttpUrl::parse("http://192.0.2.1:80").unwrap();
        let other = HttpUrl::parse("http://192.0.2.2:80").unwrap();
        let tls = Arc::new(ClientTls::new(None).unwrap());
        let upstream = Upstream::new(&Config::default(), tls);
        let peer = upstream.peer(&url.instance);
        assert!(Arc::ptr_eq(&peer, &upstream.peer(&url.instance)));
        assert!(!Arc::ptr_eq(&peer, &upstream.peer(&other.instance)));
    }
}
