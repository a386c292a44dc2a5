//! Errors of listening that name the process that uses the address.

use std::io;
use std::net::SocketAddr;

use waypost_runner::{Transport, check_port};

use crate::error::CommandError;

/// The error for an address that can't be listened on. If it is in use, it names the process that
/// holds it, and the option that chooses another port.
pub(super) fn listen_error(address: SocketAddr, error: &io::Error, option: &str) -> CommandError {
    if error.kind() != io::ErrorKind::AddrInUse {
        return CommandError::Other(format!("can't listen on {address}: {error}"));
    }
    let taken = check_port("", address, Transport::Both).err();
    let holder = match taken.and_then(|taken| taken.holder) {
        Some(holder) => holder.to_string(),
        None => "another process".to_owned(),
    };
    CommandError::Other(format!(
        "can't listen on {address}: it is in use by {holder}; choose another port with {option}"
    ))
}
