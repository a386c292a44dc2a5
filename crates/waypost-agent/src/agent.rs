//! Starting and stopping an agent.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::Error;
use crate::app::App;
use crate::builder::Builder;
use crate::faults::Faults;

/// An embedded registry. It ends when this is dropped, or sooner with
/// [`shutdown`](Self::shutdown).
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), waypost_agent::Error> {
/// let agent = waypost_agent::Agent::start().await?;
/// println!("Consul's HTTP API is at {}", agent.url());
/// agent.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Agent {
    pub(crate) http_addr: SocketAddr,
    pub(crate) dns_addr: Option<SocketAddr>,
    pub(crate) app: Arc<App>,
    pub(crate) tasks: Vec<JoinHandle<()>>,
}

impl Agent {
    /// Starts an agent on a free port of 127.0.0.1 that keeps everything in memory and serves no
    /// DNS: what a test wants. It takes well under 5 ms.
    ///
    /// # Errors
    /// If no port can be had.
    pub async fn start() -> Result<Self, Error> {
        Self::builder().start().await
    }

    /// An agent to be configured.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// Where the HTTP API is.
    #[must_use]
    pub fn http_addr(&self) -> SocketAddr {
        self.http_addr
    }

    /// Where the HTTP API is, as a URL without a slash at the end, such as
    /// `http://127.0.0.1:8500`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.http_addr)
    }

    /// Where DNS is served, over UDP and TCP, if it is.
    #[must_use]
    pub fn dns_addr(&self) -> Option<SocketAddr> {
        self.dns_addr
    }

    /// What it does wrong, on demand.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.app.faults
    }

    /// Resolves when a client has asked the agent to leave (`/v1/agent/leave`). It takes no more
    /// connections then; the rest is for its owner to do, mostly [`shutdown`](Self::shutdown).
    pub async fn left(&self) {
        // The sender lives as long as this does.
        let _ = self.app.left.subscribe().wait_for(|left| *left).await;
    }

    /// Stops serving and running checks, and waits until the ports are free again.
    pub async fn shutdown(mut self) {
        if let Err(failure) = self.app.store.saved().await {
            tracing::error!(%failure, "not everything was saved");
        }
        self.stop();
        for task in self.tasks.drain(..) {
            // Ends with "cancelled", which is what was asked for.
            let _ = task.await;
        }
    }

    fn stop(&self) {
        self.app.registration.stop();
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop();
    }
}
