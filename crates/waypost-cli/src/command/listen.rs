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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_in_use_is_named_with_its_process_and_the_option() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let in_use = listen_error(address, &io::ErrorKind::AddrInUse.into(), "--port").to_string();
        let begin = format!(
            "can't listen on {address}: it is in use by pid {} (",
            std::process::id()
        );
        assert!(in_use.starts_with(&begin), "{in_use}");
        assert!(
            in_use.ends_with("; choose another port with --port"),
            "{in_use}"
        );
        let denied = io::ErrorKind::PermissionDenied.into();
        let denied = listen_error(address, &denied, "--port").to_string();
        assert_eq!(
            denied,
            format!("can't listen on {address}: permission denied")
        );
    }
}
