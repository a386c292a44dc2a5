//! A server: what it is, what was asked of it, and who does the rest.

mod builder;
mod content;
mod process;
mod users;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use tempfile::TempDir;
use tokio::net::TcpSocket;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use self::process::Running;
use crate::app::App;
use crate::certificates::Authority;
use crate::kubeconfig::Context;
use crate::{Error, Faults, Request};

pub use self::builder::Builder;

/// The user that may do everything, and the name of its context.
pub const ADMIN: &str = "admin";

/// A running stand-in. It ends when dropped.
pub struct ApiServer {
    app: Arc<App>,
    address: SocketAddr,
    tls: TlsAcceptor,
    authority: Authority,
    namespace: String,
    /// Keeps the port while nobody listens at it.
    _reserved: TcpSocket,
    shut: watch::Sender<bool>,
    running: Mutex<Option<Running>>,
    contexts: Mutex<Vec<Context>>,
    folder: TempDir,
    kubeconfig: PathBuf,
}

impl std::fmt::Debug for ApiServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServer")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl ApiServer {
    /// What a server is to be like.
    #[must_use]
    pub fn builder() -> Builder {
        Builder::default()
    }

    /// One that is as usual, on a free port.
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub async fn start() -> Result<Self, Error> {
        Self::builder().start().await
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `https://127.0.0.1:PORT`
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The certificate of the authority that the server's own is from, as PEM.
    #[must_use]
    pub fn ca_pem(&self) -> String {
        self.authority.pem()
    }

    /// The kubeconfig with all contexts; the current one is [`ADMIN`]'s.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// The faults that can be switched on and off.
    pub fn faults(&self) -> &Faults {
        &self.app.faults
    }

    /// All requests for objects, oldest first: since the start or since they were forgotten.
    pub fn requests(&self) -> Vec<Request> {
        self.app.requests.all()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        self.app.requests.forget();
    }

    /// How many watches are open.
    pub fn open_watches(&self) -> usize {
        self.app.requests.open_watches()
    }
}
