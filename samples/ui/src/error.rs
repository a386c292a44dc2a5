//! Why the service could not run.

use std::net::SocketAddr;

use waypost::integration::axum::ServeError;

/// Why the service could not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A name or the registry's settings are not valid.
    #[error(transparent)]
    Discovery(#[from] waypost::Error),
    /// The HTTP client can't be created, for example because no root certificates are installed.
    #[error("can't create the HTTP client: {0}")]
    Client(#[from] reqwest::Error),
    /// The address can't be bound: the port is in use, or the address is not of this machine.
    #[error("can't listen on {address}: {cause}")]
    Listen {
        /// The address to listen on.
        address: SocketAddr,
        /// The error of the operating system.
        cause: std::io::Error,
    },
    /// The listener failed.
    #[error(transparent)]
    Serve(ServeError),
}
