//! The control socket of a stack that is about to run.

use std::path::Path;

use waypost_runner::control::{Client, Socket, SocketError, StackView};

use crate::error::CommandError;

/// Opens the socket.
///
/// # Errors
/// The same stack runs already: says which process it is and what to do.
pub(super) async fn open_socket(path: &Path) -> Result<Socket, CommandError> {
    let error = match Socket::open(path) {
        Ok(socket) => return Ok(socket),
        Err(error) => error,
    };
    if !matches!(error, SocketError::Running) {
        return Err(CommandError::other(error));
    }
    let running = async {
        let mut client = Client::connect(path).await.ok()?;
        client.get::<StackView>("/api/stack").await.ok()
    };
    Err(CommandError::Other(match running.await {
        Some(StackView { name, pid, .. }) => format!(
            "the stack `{name}` is already running (pid {pid}); `waypost ps` shows it, `waypost \
             logs -f` follows it, and `waypost down` stops it"
        ),
        // It is starting or stopping.
        None => "this stack is already running; `waypost ps` shows it, and `waypost down` stops it"
            .to_owned(),
    }))
}
