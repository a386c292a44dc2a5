//! Accepts connections and passes each to the worker with the fewest connections.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{Notify, mpsc};

/// The pause after a failed `accept`, which happens when file descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How long the handshakes that have begun may take once new connections are ignored.
const HANDSHAKES: Duration = Duration::from_millis(100);

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

/// Accepts connections and distributes them.
pub(crate) struct Acceptor {
    limits: Arc<ConnectionLimits>,
    workers: Vec<Assignment>,
    /// Counts the connections, so that workers with the same number of connections take turns.
    turn: AtomicUsize,
}

impl Acceptor {
    pub(crate) fn new(limits: ConnectionLimits, workers: Vec<Assignment>) -> Self {
        Self {
            limits: Arc::new(limits),
            workers,
            turn: AtomicUsize::new(0),
        }
    }

    /// Accepts connections. Never returns, except with an error.
    pub(crate) async fn accept(&self, listener: &TcpListener) -> io::Result<Infallible> {
        loop {
            self.limits.available().await;
            match listener.accept().await {
                Ok((stream, peer)) => self.assign(stream.into_std()?, peer),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    /// Accepts the connections that the system has established already, and closes the listener. Without
    /// this, closing it would reset them.
    ///
    /// `is_shared` means that other sockets listen on the same port (`SO_REUSEPORT`). Then clients still
    /// connect, and a connection that the system establishes between the last `accept` and the closing of
    /// the listener would be reset. So new ones are ignored for a while: the system of a client whose first
    /// packet is ignored sends it again after a second, and another socket gets it.
    pub(crate) async fn accept_rest(
        &self,
        listener: TcpListener,
        is_shared: bool,
    ) -> io::Result<()> {
        if is_shared {
            ignore_new_connections(&listener)?;
            if let Ok(Err(error)) = tokio::time::timeout(HANDSHAKES, self.accept(&listener)).await {
                return Err(error);
            }
        }
        let listener = listener.into_std()?;
        loop {
            match listener.accept() {
                Ok((stream, peer)) => {
                    stream.set_nonblocking(true)?;
                    self.assign(stream, peer);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if is_of_one_connection(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Passes a connection to the worker with the fewest connections.
    fn assign(&self, stream: std::net::TcpStream, peer: SocketAddr) {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let least = (0..self.workers.len())
            .map(|at| (at + turn) % self.workers.len())
            .filter_map(|at| self.workers.get(at))
            .min_by_key(|worker| worker.open.load(Ordering::Relaxed));
        let Some(worker) = least else {
            return;
        };
        let Some(permit) = Permit::new(&self.limits, peer.ip(), &worker.open) else {
            tracing::debug!(%peer, "refused: too many connections from this address");
            return;
        };
        let accepted = Accepted {
            stream,
            peer,
            permit,
        };
        if worker.accepted.send(accepted).is_err() {
            tracing::warn!(%peer, "a worker has ended; a connection is closed");
        }
    }
}

/// Makes the system drop packets that request a connection (SYN without ACK). Handshakes that have begun
/// are completed.
#[cfg(target_os = "linux")]
fn ignore_new_connections(listener: &TcpListener) -> io::Result<()> {
    use socket2::SockFilter;
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const SYN_AND_ACK: u32 = 0x12;
    // The filter sees a packet from the TCP header on. The codes are those of linux/bpf_common.h.
    let filter = [
        SockFilter::new(0x30, 0, 0, FLAGS), // load the byte with the flags
        SockFilter::new(0x54, 0, 0, SYN_AND_ACK), // mask it
        SockFilter::new(0x15, 0, 1, SYN),   // skip the next instruction unless equal
        SockFilter::new(0x06, 0, 0, 0),     // drop the packet
        SockFilter::new(0x06, 0, 0, u32::MAX), // keep all of it
    ];
    socket2::SockRef::from(listener).attach_filter(&filter)
}

#[cfg(not(target_os = "linux"))]
fn ignore_new_connections(_listener: &TcpListener) -> io::Result<()> {
    Ok(())
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
    /// Whether the limit was reached, and a tenth of it has not become free since. Logged once.
    is_full: bool,
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
    async fn available(&self) {
        loop {
            let freed = self.freed.notified();
            if self.may_accept() {
                return;
            }
            freed.await;
        }
    }

    fn may_accept(&self) -> bool {
        let mut open = self.open();
        if open.total < self.total {
            return true;
        }
        if !open.is_full {
            open.is_full = true;
            let total = self.total;
            tracing::warn!("{total} connections are open; further clients wait");
        }
        false
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
        open.is_full &= open.total > self.limits.total - self.limits.total / 10;
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

#[cfg(test)]
mod tests {
    use waypost_testkit::Logs;

    use super::*;

    fn permits(limits: &Arc<ConnectionLimits>, count: usize) -> Vec<Permit> {
        let worker = Arc::default();
        let permit = |_| Permit::new(limits, [192, 0, 2, 1].into(), &worker);
        (0..count).filter_map(permit).collect()
    }

    #[test]
    fn that_all_connections_are_in_use_is_logged_again_only_after_a_tenth_was_free() {
        let (logs, _guard) = Logs::take();
        let limits = Arc::new(ConnectionLimits::new(20, None));
        let warnings = || logs.lines(&["20 connections are open"]).len();
        let mut open = permits(&limits, 19);
        assert!(limits.may_accept());
        open.extend(permits(&limits, 1));
        assert!(!limits.may_accept() && !limits.may_accept());
        assert_eq!(warnings(), 1);
        open.pop();
        assert!(limits.may_accept());
        open.extend(permits(&limits, 1));
        assert!(!limits.may_accept());
        assert_eq!(warnings(), 1, "one of 20 was free");
        open.truncate(18);
        open.extend(permits(&limits, 2));
        assert!(!limits.may_accept());
        assert_eq!(warnings(), 2, "two of 20 were free");
    }

    #[test]
    fn an_address_has_a_limit_of_its_own() {
        let limits = Arc::new(ConnectionLimits::new(20, Some(2)));
        let worker = Arc::default();
        let mut open = permits(&limits, 3);
        assert_eq!(open.len(), 2);
        let other = Permit::new(&limits, [192, 0, 2, 2].into(), &worker);
        assert!(other.is_some());
        assert_eq!(worker.load(Ordering::Relaxed), 1);
        open.pop();
        assert_eq!(permits(&limits, 2).len(), 1);
        drop((open, other));
        assert_eq!(worker.load(Ordering::Relaxed), 0);
        let open = limits.open();
        assert_eq!((open.total, open.by_address.len()), (0, 0));
    }

    #[test]
    fn a_client_that_has_gone_is_no_failure_of_the_listener() {
        for (kind, expected) in [
            (io::ErrorKind::ConnectionAborted, true),
            (io::ErrorKind::ConnectionReset, true),
            (io::ErrorKind::ConnectionRefused, true),
            (io::ErrorKind::Interrupted, true),
            (io::ErrorKind::OutOfMemory, false),
            (io::ErrorKind::Other, false),
        ] {
            assert_eq!(is_of_one_connection(&kind.into()), expected, "{kind:?}");
        }
    }
}
