//! Why a server can't be started.

use std::io;
use std::net::SocketAddr;

/// Why a server can't be started.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The address can't be had.
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// A file can't be written.
    File {
        /// Its path.
        path: std::path::PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A key or a certificate can't be made.
    Certificate(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    pub(crate) fn key(text: &'static str) -> Self {
        Self::Certificate(text.into())
    }

    pub(crate) fn verifier(error: rustls::server::VerifierBuilderError) -> Self {
        Self::Certificate(error.into())
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bind { address, source } => write!(f, "can't listen at {address}: {source}"),
            Self::File { path, source } => write!(f, "{}: {source}", path.display()),
            Self::Certificate(source) => write!(f, "can't make a certificate: {source}"),
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
