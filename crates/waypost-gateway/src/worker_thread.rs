//! Serves the connections that the listener assigns to a worker.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use waypost::ConfigError;

use crate::connection::Connection;
use crate::listener::Accepted;
use crate::server::Server;
use crate::worker::Worker;

/// Serves the connections that arrive until `stop` is cancelled. `tracker` tracks them.
pub(crate) async fn run(
    server: Arc<Server>,
    worker: Arc<Worker>,
    mut accepted: mpsc::UnboundedReceiver<Accepted>,
    tracker: TaskTracker,
    stop: CancellationToken,
) {
    let accept = async {
        while let Some(accepted) = accepted.recv().await {
            let (server, worker) = (Arc::clone(&server), Arc::clone(&worker));
            let peer = accepted.peer;
            match Connection::new(server, worker, accepted) {
                Ok(connection) => {
                    tracker.spawn(connection);
                }
                Err(error) => tracing::debug!(%error, %peer, "connection failed"),
            }
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        () = accept => {}
        () = worker.run() => {}
        () = stop.cancelled() => {}
    }
    worker.flush_log();
}

/// Starts a thread with a runtime of its own for the work.
///
/// # Errors
/// If the system has no resources for it.
pub(crate) fn start(
    number: usize,
    work: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ConfigError> {
    let failed = |error: std::io::Error| {
        ConfigError::new(
            "worker threads".to_owned(),
            format!("can't be started: {error}"),
        )
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    std::thread::Builder::new()
        .name(format!("gateway-{number}"))
        .spawn(move || runtime.block_on(work))
        .map(|_| ())
        .map_err(failed)
}
