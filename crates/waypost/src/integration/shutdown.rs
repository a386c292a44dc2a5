use tokio::signal::unix::{SignalKind, signal};

/// Waits until the process is asked to end, by SIGTERM or SIGINT (Ctrl-C).
pub async fn shutdown_signal() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        // Without handlers the signals end the process by themselves.
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}
