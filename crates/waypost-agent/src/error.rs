//! Errors of starting an agent.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use crate::journal::JournalError;

/// Why an agent can't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An address can't be bound: it is in use, isn't local, or needs privileges.
    #[error("can't listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The Unix socket can't be created: another process listens on it, or its directory isn't
    /// writable.
    #[error("can't listen on {}: {source}", path.display())]
    Socket {
        /// The path of the socket.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// The agent would be reachable from other machines without a token.
    #[error(
        "{address} is reachable from other machines: set a token, or bind a loopback address such \
         as 127.0.0.1"
    )]
    Unprotected {
        /// The address.
        address: SocketAddr,
    },
    /// The metadata of the node is invalid.
    #[error("{message}")]
    NodeMeta {
        /// The invalid pair, and the rule that it violates.
        message: String,
    },
    /// The id of the node isn't a UUID.
    #[error("node id {id:?} is not a UUID such as 7b6a1a4c-3a52-4f0e-9d6f-0c5d6a1f2b3e")]
    NodeId {
        /// The id.
        id: String,
    },
    /// The data directory can't be read or written.
    #[error("can't use the data directory: {}: {message}", file.display())]
    Data {
        /// The file or directory.
        file: PathBuf,
        /// What is wrong with it, with the offset if it is damaged.
        message: String,
    },
}

impl From<JournalError> for Error {
    fn from(JournalError { file, message }: JournalError) -> Self {
        Self::Data { file, message }
    }
}
