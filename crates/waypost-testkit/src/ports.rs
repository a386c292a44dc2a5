use std::net::{Ipv4Addr, TcpListener};

/// Ports of 127.0.0.1 that nobody listens on. All are held until the last is found, so that they
/// differ.
///
/// # Panics
/// If the system has none left.
pub fn free_ports<const N: usize>() -> [u16; N] {
    let listeners: [TcpListener; N] = std::array::from_fn(|_| {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port of 127.0.0.1")
    });
    listeners.map(|listener| listener.local_addr().expect("a bound listener").port())
}
