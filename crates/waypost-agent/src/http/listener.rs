//! The sockets that the HTTP API listens on.

use std::io;
#[cfg(unix)]
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
#[cfg(unix)]
use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};

/// A TCP or Unix socket that accepts connections.
#[derive(Debug)]
pub(crate) enum Listener {
    Tcp(TcpListener),
    /// Reachable only by processes on this machine, and never by a web page.
    #[cfg(unix)]
    Unix(UnixSocket),
}

/// A Unix socket. Dropping it removes its file.
#[cfg(unix)]
#[derive(Debug)]
pub(crate) struct UnixSocket {
    listener: UnixListener,
    path: PathBuf,
    /// The device and inode of the file.
    file: Option<(u64, u64)>,
}

/// A client connection.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Listener {
    /// Listens on a Unix socket at `path`. Replaces a socket file that no process listens on.
    #[cfg(unix)]
    pub(crate) async fn bind_unix(path: &Path) -> io::Result<Self> {
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && !is_socket(path) => {
                return Err(io::Error::new(
                    io::ErrorKind::AlreadyExists,
                    "there is a file that is not a socket",
                ));
            }
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_abandoned(path).await => {
                std::fs::remove_file(path)?;
                UnixListener::bind(path)?
            }
            bound => bound?,
        };
        let path = path.to_owned();
        let file = file_id(&path);
        Ok(Self::Unix(UnixSocket {
            listener,
            path,
            file,
        }))
    }

    #[cfg(not(unix))]
    pub(crate) async fn bind_unix(_: &Path) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "failed to set TCP_NODELAY");
                }
                Ok(Box::new(stream))
            }
            #[cfg(unix)]
            Self::Unix(socket) => Ok(Box::new(socket.listener.accept().await?.0)),
        }
    }

    pub(super) fn is_unix_socket(&self) -> bool {
        !matches!(self, Self::Tcp(_))
    }
}

#[cfg(unix)]
fn is_socket(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|data| data.file_type().is_socket())
}

/// The device and inode of a file.
#[cfg(unix)]
fn file_id(path: &Path) -> Option<(u64, u64)> {
    let data = std::fs::symlink_metadata(path).ok()?;
    Some((data.dev(), data.ino()))
}

/// Whether the socket file exists but no process listens on it.
#[cfg(unix)]
async fn is_abandoned(path: &Path) -> bool {
    let is_refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    UnixStream::connect(path).await.is_err_and(is_refused)
}

#[cfg(unix)]
impl Drop for UnixSocket {
    fn drop(&mut self) {
        // Another program may have replaced the file.
        if self.file.is_some() && file_id(&self.path) == self.file {
            // It may already have been removed.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
