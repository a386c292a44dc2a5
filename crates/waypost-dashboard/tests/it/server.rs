//! A server that stops with the test.

use std::future::IntoFuture;

use axum::Router;
use tokio::net::TcpListener;
use tokio::runtime::Builder;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use waypost_testkit::free_ports;

pub(crate) struct Server {
    /// Ends with a slash.
    pub(crate) url: String,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start(router: Router) -> Self {
        let [port] = free_ports();
        Self::start_at(&format!("http://127.0.0.1:{port}/"), router).await
    }

    /// Starts a server at the address of one that has stopped.
    pub(crate) async fn start_at(url: &str, router: Router) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let address = url.trim_start_matches("http://").trim_end_matches('/');
        let listener = TcpListener::bind(address).await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let listener = listener.into_std().unwrap();
        // A separate runtime: when it ends, all connections are closed, as in a crash.
        let task = tokio::task::spawn_blocking(move || {
            let runtime = Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = TcpListener::from_std(listener).unwrap();
                tokio::select! {
                    served = axum::serve(listener, router).into_future() => served.unwrap(),
                    () = stopped.cancelled() => {}
                }
            });
            runtime.shutdown_background();
        });
        Self { url, stop, task }
    }

    /// Stops it, and closes its connections.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        let _ = (&mut self.task).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
