//! Why an agent can't start.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::journal::Fault;

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
    /// The Unix socket can't be made: somebody listens there, or the folder can't be written to.
    #[error("can't listen on {}: {source}", path.display())]
    Socket {
        /// Where it was to be.
        path: PathBuf,
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
    /// What the node is to say of itself breaks the rules for metadata.
    #[error("{what}")]
    NodeMeta {
        /// Which pair, and what is wrong with it.
        what: String,
    },
    /// The id that the node is to have is no UUID.
    #[error("node id {id:?}: give a UUID such as 7b6a1a4c-3a52-4f0e-9d6f-0c5d6a1f2b3e")]
    NodeId {
        /// The id.
        id: String,
    },
    /// What was kept can't be read, or nothing can be kept.
    #[error("can't keep the registry: {}: {what}", file.display())]
    Data {
        /// The file or folder.
        file: PathBuf,
        /// What is wrong with it, and where.
        what: String,
    },
}

impl From<Fault> for Error {
    fn from(Fault { file, what }: Fault) -> Self {
        Self::Data { file, what }
    }
}
