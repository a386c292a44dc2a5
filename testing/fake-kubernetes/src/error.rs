//! Why a server cannot be started.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use rustls::server::VerifierBuilderError;

/// Why a server cannot be started, or a kubeconfig cannot be written.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The server cannot listen at this address.
    Bind {
        /// The address.
        address: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
    /// A file cannot be written.
    File {
        /// Its path.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// A key or a certificate cannot be made.
    Certificate(Box<dyn std::error::Error + Send + Sync>),
    /// There is no context of this name.
    UnknownContext(String),
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bind { address, source } => write!(f, "cannot listen at {address}: {source}"),
            Self::File { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Certificate(source) => write!(f, "cannot make a certificate: {source}"),
            Self::UnknownContext(name) => write!(f, "there is no context {name:?}"),
        }
    }
}

impl std::error::Error for Error {}

impl From<rcgen::Error> for Error {
    fn from(error: rcgen::Error) -> Self {
        Self::Certificate(error.into())
    }
}

impl From<rustls::Error> for Error {
    fn from(error: rustls::Error) -> Self {
        Self::Certificate(error.into())
    }
}

impl From<VerifierBuilderError> for Error {
    fn from(error: VerifierBuilderError) -> Self {
        Self::Certificate(error.into())
    }
}
