//! Accepts connections and passes each to the worker with the fewest connections.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};

/// The pause after a failed `accept`, which happens when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A connection that was accepted.
pub(crate) struct Accepted {
    pub(crate) stream: std::net::TcpStream,
    pub(crate) peer: SocketAddr,
    /// Held as long as the connection is open.
    pub(crate) permit: Permit,
}

/// The listener's handle to a worker.
pub(crate) struct Assignment {
    pub(crate) accepted: mpsc::UnboundedSender<Accepted>,
    /// The number of the worker's connections.
    pub(crate) open: Arc<AtomicUsize>,
}

/// Accepts connections while it is polled.
pub(crate) async fn accept(
    listener: &TcpListener,
    limits: Arc<ConnectionLimits>,
    workers: &[Assignment],
) -> io::Result<()> {
    let mut next = 0;
    loop {
        limits.room().await;
        let (stream, peer) = match listener.accept().await {
            Ok((stream, peer)) => (stream.into_std()?, peer),
            Err(error) => {
                if !is_of_one_connection(&error) {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        // Workers with the same number of connections take turns.
        next += 1;
        let least = (0..workers.len())
            .map(|at| (at + next) % workers.len())
            .filter_map(|at| workers.get(at))
            .min_by_key(|worker| worker.open.load(Ordering::Relaxed));
        let Some(worker) = least else {
            return Ok(());
        };
        let Some(permit) = Permit::new(&limits, peer.ip(), &worker.open) else {
            tracing::debug!(%peer, "refused: too many connections from this address");
            continue;
        };
        let accepted = Accepted {
            stream,
            peer,
            permit,
        };
        if worker.accepted.send(accepted).is_err() {
            return Ok(());
        }
    }
}

/// Whether only the connection that was to be accepted is affected.
fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionRefused
            | io::ErrorKind::Interrupted
    )
}

/// The number of connections that may be open, in all and from one address.
pub(crate) struct ConnectionLimits {
    total: usize,
    per_address: usize,
    open: Mutex<Open>,
    freed: Notify,
}

#[derive(Default)]
struct Open {
    total: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One of the connections that may be open.
pub(crate) struct Permit {
    limits: Arc<ConnectionLimits>,
    address: IpAddr,
    of_worker: Arc<AtomicUsize>,
}

impl ConnectionLimits {
    pub(crate) fn new(total: usize, per_address: Option<usize>) -> Self {
        Self {
            total,
            per_address: per_address.unwrap_or(usize::MAX),
            open: Mutex::default(),
            freed: Notify::new(),
        }
    }

    /// Waits until another connection may be accepted. Until then clients wait in the backlog.
    async fn room(&self) {
        let mut has_warned = false;
        loop {
            let freed = self.freed.notified();
            if self.open().total < self.total {
                return;
            }
            if !has_warned {
                has_warned = true;
                let total = self.total;
                tracing::warn!("{total} connections are open; further clients wait");
            }
            freed.await;
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit {
    /// `None` if the address has too many connections.
    fn new(
        limits: &Arc<ConnectionLimits>,
        address: IpAddr,
        of_worker: &Arc<AtomicUsize>,
    ) -> Option<Self> {
        let mut open = limits.open();
        let of_address = open.by_address.entry(address).or_default();
        if *of_address >= limits.per_address {
            return None;
        }
        *of_address += 1;
        open.total += 1;
        of_worker.fetch_add(1, Ordering::Relaxed);
        Some(Self {
            limits: Arc::clone(limits),
            address,
            of_worker: Arc::clone(of_worker),
        })
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.of_worker.fetch_sub(1, Ordering::Relaxed);
        let mut open = self.limits.open();
        open.total -= 1;
        if let Some(count) = open.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&self.address);
            }
        }
        drop(open);
        self.limits.freed.notify_waiters();
    }
}
