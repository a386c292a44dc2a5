//! The process of a server, so to speak: how it begins, and ends in every way that servers end.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, MutexGuard, PoisonError};

use tokio::net::TcpSocket;
use tokio::task::JoinHandle;

use super::ApiServer;
use crate::Error;
use crate::http::{Endings, serve};
use crate::store::Backup;

/// How many connects the system holds for a server that doesn't accept them.
const BACKLOG: u32 = 1024;

/// A server that listens, or that has open watches.
pub(super) struct Running {
    endings: Endings,
    task: JoinHandle<()>,
}

impl ApiServer {
    /// Kills the process, so to speak: all connections end in the middle of whatever they were
    /// about, and nobody listens any more.
    pub async fn kill(&self) {
        let running = self.running().take();
        if let Some(running) = running {
            running.task.abort();
            running.endings.watching.cancel();
            // Ends with "cancelled", which is what was asked for.
            let _ = running.task.await;
        }
        self.shut.send_replace(false);
    }

    /// Starts a server that was killed or terminated, at the same address and with what etcd
    /// keeps. As after every start, nobody can watch from a revision before this one.
    ///
    /// # Errors
    /// If the address can't be had.
    pub async fn restart(&self) -> Result<(), Error> {
        self.kill().await;
        self.app.store.expire();
        self.listen()
    }

    /// Terminates the process, so to speak: nobody listens any more, open watches go on for a
    /// while ([`Builder::termination_tail`](super::Builder::termination_tail)) and then end
    /// cleanly. Resolves when all has ended.
    pub async fn terminate(&self) {
        let running = self.running().take();
        let Some(mut running) = running else {
            return;
        };
        running.endings.listening.cancel();
        let tail = self.app.settings.termination_tail;
        if tokio::time::timeout(tail, &mut running.task).await.is_err() {
            running.endings.watching.cancel();
            let _ = running.task.await;
        }
    }

    /// Stops the process as SIGSTOP does: not a byte goes in or out, connections stay open, and new
    /// ones are taken by the system but not by the server.
    pub fn freeze(&self) {
        self.shut.send_replace(true);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.shut.send_replace(false);
    }

    /// Lets nobody watch from a revision before the current one (410), as when too much has changed
    /// since. Watches that are open go on.
    pub fn expire_history(&self) {
        self.app.store.expire();
    }

    /// All objects as they are now, as a snapshot of etcd.
    pub fn backup(&self) -> Backup {
        self.app.store.backup()
    }

    /// Goes back to a backup, as when etcd is restored from a snapshot: the server starts anew, and
    /// the revision is the one that was then.
    ///
    /// # Errors
    /// If the address can't be had.
    pub async fn restore(&self, backup: &Backup) -> Result<(), Error> {
        self.kill().await;
        self.app.store.restore(backup);
        self.listen()
    }

    /// The same without an end to anything: open watches stay open, and silent until the revision is
    /// past theirs. So it looks through a load balancer, if the server at its other side that has our
    /// watches is not the one that answers.
    pub fn restore_elsewhere(&self, backup: &Backup) {
        self.app.store.restore(backup);
    }

    pub(super) fn listen(&self) -> Result<(), Error> {
        let address = self.address;
        let bind = |source| Error::Bind { address, source };
        let listener = socket(address)
            .and_then(|it| it.listen(BACKLOG))
            .map_err(bind)?;
        let endings = Endings::default();
        let serving = serve(
            Arc::clone(&self.app),
            listener,
            self.tls.clone(),
            self.shut.subscribe(),
            endings.clone(),
        );
        let task = tokio::spawn(serving);
        *self.running() = Some(Running { endings, task });
        Ok(())
    }

    fn running(&self) -> MutexGuard<'_, Option<Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        if let Some(running) = self.running().take() {
            running.endings.watching.cancel();
            running.task.abort();
        }
    }
}

/// A socket at an address that another of ours may have too, as long as only one listens.
pub(super) fn socket(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}
