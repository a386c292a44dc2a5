//! Where clients come in.

use std::io;
use std::path::Path;
#[cfg(unix)]
use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
#[cfg(unix)]
use tokio::net::{UnixListener, UnixStream};

/// A place to be called at.
#[derive(Debug)]
pub(crate) enum Door {
    /// A port.
    Port(TcpListener),
    /// A file, which nothing but a process on this machine can call at: no web page, for one.
    #[cfg(unix)]
    Socket(Socket),
}

/// A socket in the file system. The file goes with it.
#[cfg(unix)]
#[derive(Debug)]
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

/// A connection with a client.
pub(super) trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

impl Door {
    /// A socket at `path`, in the place of one that nobody listens at any more.
    #[cfg(unix)]
    pub(crate) async fn socket(path: &Path) -> io::Result<Self> {
        let listener = match UnixListener::bind(path) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_dead(path).await => {
                std::fs::remove_file(path)?;
                UnixListener::bind(path)?
            }
            bound => bound?,
        };
        let path = path.to_owned();
        Ok(Self::Socket(Socket { listener, path }))
    }

    #[cfg(not(unix))]
    pub(crate) async fn socket(_: &Path) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Port(listener) => {
                let (stream, _) = listener.accept().await?;
                if let Err(error) = stream.set_nodelay(true) {
                    tracing::debug!(%error, "can't set TCP_NODELAY");
                }
                Ok(Box::new(stream))
            }
            #[cfg(unix)]
            Self::Socket(socket) => Ok(Box::new(socket.listener.accept().await?.0)),
        }
    }

    /// Whether only processes on this machine get in here.
    pub(super) fn is_local(&self) -> bool {
        !matches!(self, Self::Port(_))
    }
}

/// Whether it is a socket that an agent has left behind.
#[cfg(unix)]
async fn is_dead(path: &Path) -> bool {
    let refused = |error: io::Error| error.kind() == io::ErrorKind::ConnectionRefused;
    UnixStream::connect(path).await.is_err_and(refused)
}

#[cfg(unix)]
impl Drop for Socket {
    fn drop(&mut self) {
        // Somebody may have removed it already.
        let _ = std::fs::remove_file(&self.path);
    }
}
