use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::ops::Range;
use std::sync::atomic::{AtomicU16, Ordering};

/// Above the well-known ports; below those that the project's own `port::free` chooses (from 20000)
/// and those that the system gives to connections (from 32768 on Linux), so that neither takes one
/// before the test's own process listens there, nor while a test has that process restarted.
const TAKEN_FROM: Range<u16> = 10_000..20_000;

/// Ports of 127.0.0.1 that nobody uses at this moment, neither for TCP nor for UDP. None is given
/// twice in one process, so that tests which run at once don't get the same.
///
/// # Panics
/// If there are none left.
pub fn free_ports<const N: usize>() -> [u16; N] {
    static GIVEN: AtomicU16 = AtomicU16::new(0);
    // Where to begin, lest two processes that start together try the same ones.
    let offset = (std::process::id() % 97) as u16 * 103;
    std::array::from_fn(|_| {
        loop {
            let given = GIVEN.fetch_add(1, Ordering::Relaxed);
            assert!(
                given < TAKEN_FROM.len() as u16,
                "no port of 127.0.0.1 is free"
            );
            let port = TAKEN_FROM.start + (offset + given) % TAKEN_FROM.len() as u16;
            let address = (Ipv4Addr::LOCALHOST, port);
            if TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok() {
                return port;
            }
        }
    })
}
