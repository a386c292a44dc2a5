//! Why an agent can't start.

use std::io;
use std::net::SocketAddr;

/// Why an agent can't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is taken, or isn't one of this machine's, or needs rights.
    #[error("can't listen on {address}: {source}")]
    Bind {
        /// Where it was to listen.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// Others than this machine could reach the agent, and it has no token.
    #[error(
        "{address} can be reached from other machines: give the agent a token, or bind a loopback \
         address such as 127.0.0.1"
    )]
    Unprotected {
        /// Where it was to listen.
        address: SocketAddr,
    },
    /// Something was asked for that this version doesn't do.
    #[error("this agent doesn't do this yet: {0}")]
    NotServed(&'static str),
}
