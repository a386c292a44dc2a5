//! The Unix socket of a running stack, which only its user can open.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// The socket of a stack. It is removed on drop.
#[derive(Debug)]
pub struct Socket {
    path: PathBuf,
    listener: Option<UnixListener>,
    /// Locked while the stack runs. The kernel unlocks it even if the process is killed.
    _lock: File,
}

/// Why the socket of a stack can't be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SocketError {
    /// Another process runs the same stack.
    #[error("this stack is already running")]
    Running,
    /// The operating system reported an error.
    #[error("cannot open the control socket {}: {source}", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
}

impl Socket {
    /// Opens a socket; see [`socket_of_file`]. Replaces a socket left behind by a killed process.
    ///
    /// # Errors
    /// The stack is already running, or the socket can't be created.
    ///
    /// # Panics
    /// Outside a Tokio runtime.
    pub fn open(path: &Path) -> Result<Self, SocketError> {
        let failed = |source| SocketError::Io {
            path: path.to_owned(),
            source,
        };
        if let Some(folder) = path.parent() {
            private_folder(folder).map_err(failed)?;
        }
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(path.with_extension("lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(SocketError::Running),
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        // No other process has the lock, so an existing socket is stale.
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            listener: Some(listener),
            _lock: lock,
        })
    }

    /// Where the socket is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Serves a router on the socket, in the background, until the runtime ends.
    pub fn serve(&mut self, router: axum::Router) {
        if let Some(listener) = self.listener.take() {
            tokio::spawn(async move { axum::serve(listener, router).await });
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Creates the folder for sockets. Other users must not be able to create files in it.
fn private_folder(folder: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let metadata = std::fs::metadata(folder)?;
    let user = rustix::process::getuid().as_raw();
    if metadata.uid() != user || metadata.mode() & 0o022 != 0 {
        let message = format!("{} is owned or writable by other users", folder.display());
        return Err(io::Error::other(message));
    }
    Ok(())
}

/// The folder of the sockets: `waypost` in `XDG_RUNTIME_DIR`, or else a folder per user in the
/// directory for temporary files.
fn runtime_folder() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|folder| !folder.is_empty()) {
        Some(folder) => PathBuf::from(folder).join("waypost"),
        None => {
            let user = rustix::process::getuid().as_raw();
            std::env::temp_dir().join(format!("waypost-{user}"))
        }
    }
}

/// The socket of the stack that a file describes.
///
/// # Errors
/// The file can't be found.
pub fn socket_of_file(file: &Path) -> io::Result<PathBuf> {
    let file = file.canonicalize()?;
    let digest = fnv1a(file.as_os_str().as_encoded_bytes());
    Ok(runtime_folder().join(format!("stack-{digest:016x}.sock")))
}

/// The socket of the sample stack whose gateway has this port.
pub fn socket_of_sample(gateway_port: u16) -> PathBuf {
    runtime_folder().join(format!("sample-{gateway_port}.sock"))
}

/// The sockets of all running stacks of this user, and stale sockets of stacks that were killed.
pub fn running_stacks() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(runtime_folder());
    let paths = entries
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path());
    let mut sockets: Vec<_> = paths
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "sock")
        })
        .collect();
    sockets.sort();
    sockets
}

/// The FNV-1a hash, because it is the same in every version of this program.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_socket_is_private_and_exclusive_and_a_stale_one_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("waypost").join("stack.sock");
        let socket = Socket::open(&path).unwrap();
        let mode = std::fs::metadata(&path).unwrap().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(matches!(Socket::open(&path), Err(SocketError::Running)));
        drop(socket);
        assert!(!path.exists());
        // As after a kill: the file exists, but no process listens on it.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        drop(Socket::open(&path).unwrap());
    }

    #[tokio::test]
    async fn a_folder_that_others_may_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), Permissions::from_mode(0o777)).unwrap();
        let error = Socket::open(&dir.path().join("stack.sock")).unwrap_err();
        assert!(
            error.to_string().contains("writable by other users"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_folder_in_the_place_of_a_socket_is_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("waypost").join("stack.sock");
        std::fs::create_dir_all(&path).unwrap();
        std::fs::set_permissions(path.parent().unwrap(), Permissions::from_mode(0o700)).unwrap();
        let error = Socket::open(&path).unwrap_err().to_string();
        let expected = format!("cannot open the control socket {}: ", path.display());
        assert!(error.starts_with(&expected), "{error}");
        assert!(error.contains("irectory"), "{error}");
        assert!(path.is_dir());
    }

    #[test]
    fn each_stack_has_a_socket_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        for name in ["a.toml", "b.toml"] {
            std::fs::write(file(name), "").unwrap();
        }
        let (a, b) = (
            socket_of_file(&file("a.toml")).unwrap(),
            socket_of_file(&file("b.toml")).unwrap(),
        );
        assert_ne!(a, b);
        // Whatever the path to the same file is.
        std::os::unix::fs::symlink(file("a.toml"), file("link.toml")).unwrap();
        assert_eq!(socket_of_file(&file("link.toml")).unwrap(), a);
        assert!(socket_of_file(&file("none.toml")).is_err());
        assert_ne!(socket_of_sample(8000), socket_of_sample(8001));
        assert_eq!(socket_of_sample(8000).parent(), a.parent());
    }

    #[test]
    fn the_hash_is_fnv_1a() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
    }
}
