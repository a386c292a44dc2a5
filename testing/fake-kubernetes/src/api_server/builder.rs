//! How a server is built and started.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;

use super::ApiServer;
use super::process::socket;
use crate::Error;
use crate::app::{App, Settings};
use crate::certificates::Authority;

/// What a server is to be like.
#[derive(Debug)]
pub struct Builder {
    address: SocketAddr,
    namespace: String,
    kubeconfig: Option<PathBuf>,
    seed: Option<u64>,
    settings: Settings,
}

impl Default for Builder {
    fn default() -> Self {
        Self {
            address: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            namespace: "default".to_owned(),
            kubeconfig: None,
            seed: None,
            settings: Settings::default(),
        }
    }
}

impl Builder {
    /// Where it is to listen. The default is a free port of 127.0.0.1.
    #[must_use]
    pub fn address(mut self, address: SocketAddr) -> Self {
        self.address = address;
        self
    }

    /// The namespace that all contexts start in, which is created if need be. The default is
    /// `default`.
    #[must_use]
    pub fn namespace(mut self, name: &str) -> Self {
        name.clone_into(&mut self.namespace);
        self
    }

    /// Where to write the kubeconfig with all contexts. The default is a temporary file.
    #[must_use]
    pub fn kubeconfig(mut self, path: impl Into<PathBuf>) -> Self {
        self.kubeconfig = Some(path.into());
        self
    }

    /// The time between two bookmarks of a watch. The default is 60 s, as in the API server.
    #[must_use]
    pub fn bookmark_interval(mut self, interval: Duration) -> Self {
        self.settings.bookmark_interval = interval;
        self
    }

    /// How long watches outlive [`terminate`](ApiServer::terminate). The default is 60 s, as in
    /// the API server.
    #[must_use]
    pub fn termination_tail(mut self, tail: Duration) -> Self {
        self.settings.termination_tail = tail;
        self
    }

    /// Cuts off the watch of a reader that has taken nothing for so long while more than so many
    /// changes wait for it. The default is 250 ms and 100 changes.
    #[must_use]
    pub fn slow_reader(mut self, patience: Duration, changes: usize) -> Self {
        self.settings.slow_reader = (patience, changes);
        self
    }

    /// How long a namespace takes to go. The default is 5 s.
    #[must_use]
    pub fn namespace_deletion(mut self, time: Duration) -> Self {
        self.settings.namespace_deletion = time;
        self
    }

    /// Whether endpoints may be at loopback addresses. The API server refuses them; a test whose
    /// endpoints are real processes of this machine needs them. The default is no.
    #[must_use]
    pub fn allow_loopback(mut self, allow: bool) -> Self {
        self.settings.allow_loopback = allow;
        self
    }

    /// The seed of everything random. The default is another one every time.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Starts the server on the current Tokio runtime.
    ///
    /// # Errors
    /// If the address can't be had, or a file can't be written.
    pub async fn start(self) -> Result<ApiServer, Error> {
        let bind = |address| move |source: io::Error| Error::Bind { address, source };
        let reserved = socket(self.address).map_err(bind(self.address))?;
        let address = reserved.local_addr().map_err(bind(self.address))?;
        let authority = Authority::new()?;
        let tls = authority.server_config(address.ip())?;
        let random = self
            .seed
            .map_or_else(fastrand::Rng::new, fastrand::Rng::with_seed);
        let folder = tempfile::tempdir().map_err(|source| Error::File {
            path: std::env::temp_dir(),
            source,
        })?;
        let default = folder.path().join("kubeconfig");
        let server = ApiServer {
            app: Arc::new(App::new(self.settings, random)),
            address,
            tls: TlsAcceptor::from(Arc::new(tls)),
            authority,
            namespace: self.namespace,
            _reserved: reserved,
            shut: watch::Sender::new(false),
            running: Mutex::new(None),
            contexts: Mutex::default(),
            folder,
            kubeconfig: self.kubeconfig.unwrap_or(default),
        };
        server.populate()?;
        server.listen()?;
        Ok(server)
    }
}
