//! Free ports.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::Range;
use std::sync::atomic::{AtomicU16, Ordering};

/// Below the ports that `waypost_runner::port::free` chooses (from 20000) and those that the system
/// assigns to outgoing connections (from 32768 on Linux), so that neither uses a port before the
/// test listens on it, or while the test restarts a process.
const RANGE: Range<u16> = 10_000..20_000;

/// Ports of 127.0.0.1 that are free for both TCP and UDP. A port is returned only once per process,
/// so concurrent tests get different ones.
///
/// # Panics
/// If no port is left.
pub fn free_ports<const N: usize>() -> [u16; N] {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Differs between test processes that run at the same time.
    let offset = (std::process::id() % 97) as u16 * 103;
    std::array::from_fn(|_| {
        loop {
            let next = NEXT.fetch_add(1, Ordering::Relaxed);
            assert!(next < RANGE.len() as u16, "no port of 127.0.0.1 is free");
            let port = RANGE.start + (offset + next) % RANGE.len() as u16;
            let address = (Ipv4Addr::LOCALHOST, port);
            if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
                return port;
            }
        }
    })
}
