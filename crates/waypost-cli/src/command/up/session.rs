//! Opens the control socket of a stack before it starts.

use std::path::Path;

use waypost_runner::control::{Client, Socket, SocketError, StackView};

use crate::error::CommandError;

/// Opens the socket.
///
/// # Errors
/// If the same stack is already running. The message names the process, and what to do.
pub(super) async fn open_socket(path: &Path) -> Result<Socket, CommandError> {
    let error = match Socket::open(path) {
        Ok(socket) => return Ok(socket),
        Err(error) => error,
    };
    if !matches!(error, SocketError::Running) {
        return Err(CommandError::other(error));
    }
    Err(match running(path).await {
        Some(stack) => already_running(&stack),
        // The other process is starting or stopping.
        None => CommandError::other(
            "this stack is already running; `waypost ps` shows it, and `waypost down` stops it",
        ),
    })
}

/// # Errors
/// The stack is already running.
pub(super) async fn check_not_running(socket: &Path) -> Result<(), CommandError> {
    match running(socket).await {
        Some(stack) => Err(already_running(&stack)),
        None => Ok(()),
    }
}

async fn running(socket: &Path) -> Option<StackView> {
    let mut client = Client::connect(socket).await.ok()?;
    client.get("/api/stack").await.ok()
}

fn already_running(StackView { name, pid, .. }: &StackView) -> CommandError {
    CommandError::Other(format!(
        "the stack `{name}` is already running (pid {pid}); `waypost ps` shows it, `waypost logs \
         -f` follows it, and `waypost down` stops it"
    ))
}
