//! A listener that the service manager hands over, as described in sd_listen_fds(3).

use std::net::TcpListener;

use listenfd::ListenFd;

use crate::error::CommandError;

/// The listener in `LISTEN_FDS`, if it is for this process. It stays open while this process is replaced,
/// so that clients wait instead of being refused. Removes the variables, so no other thread may run yet.
///
/// # Errors
/// If there are several, or it isn't a TCP listener.
pub(super) fn inherited_listener() -> Result<Option<TcpListener>, CommandError> {
    let mut inherited = ListenFd::from_env();
    let invalid = |problem: String| CommandError::Invalid(format!("LISTEN_FDS: {problem}"));
    match inherited.len() {
        0 => return Ok(None),
        1 => {}
        count => {
            return Err(invalid(format!(
                "{count} sockets were handed over; expected one, for clients"
            )));
        }
    }
    let listener = inherited.take_tcp_listener(0);
    let Some(listener) = listener.map_err(|error| invalid(error.to_string()))? else {
        return Ok(None);
    };
    listener
        .set_nonblocking(true)
        .map_err(|error| invalid(error.to_string()))?;
    Ok(Some(listener))
}
