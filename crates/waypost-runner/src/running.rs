//! A started stack: ask how it is, change it, end it.

use std::sync::Arc;

use crate::error::StackError;
use crate::fleet::Fleet;
use crate::log::Line;
use crate::status::{Events, Status};

/// A stack that was started. Clones are handles to the same stack.
///
/// When the last handle is dropped without [`shutdown`](Running::shutdown), every process is killed
/// at once.
#[derive(Clone, Debug)]
pub struct Running(pub(crate) Arc<Fleet>);

impl Running {
    /// Waits until every instance is healthy (or has completed).
    ///
    /// # Errors
    /// [`StackError::NotHealthy`] as soon as one has crashed or was too slow. It will be tried again
    /// all the same: whether to go on without it is for the caller to decide.
    pub async fn ready(&self) -> Result<(), StackError> {
        let everybody = self.0.lock().epochs(|_| true);
        self.0.settled(&everybody).await
    }

    /// Every instance as it is now.
    pub fn status(&self) -> Vec<Status> {
        self.0.context.board.statuses()
    }

    /// Every change from now on.
    pub fn events(&self) -> Events {
        self.0.context.board.events()
    }

    /// The last lines of an instance, at most `count`, oldest first.
    ///
    /// # Errors
    /// There is no such instance.
    pub fn recent_lines(&self, instance: &str, count: usize) -> Result<Vec<Line>, StackError> {
        let lines = self.0.lock().recent_lines(instance, count);
        lines.ok_or_else(|| self.0.unknown(instance))
    }

    /// Ends an instance and starts it again, or every instance of a process, one after the other.
    /// Returns when they are healthy.
    ///
    /// # Errors
    /// There is no such instance or process, or one did not become healthy; then the following ones
    /// are left as they are.
    pub async fn restart(&self, name: &str) -> Result<(), StackError> {
        let instances = self.0.lock().named(name);
        if instances.is_empty() {
            return Err(self.0.unknown(name));
        }
        for instance in instances {
            let epoch = self.0.lock().start_anew(&instance)?;
            self.0.settled(&[(instance, epoch)]).await?;
        }
        Ok(())
    }

    /// Runs this many replicas of a process. New ones get free ports; those with the highest numbers
    /// are ended. Returns when the new ones are healthy and the others have ended.
    ///
    /// # Errors
    /// There is no such process, a name is taken, or a new replica did not become healthy.
    pub async fn scale(&self, process: &str, replicas: u32) -> Result<(), StackError> {
        let (added, surplus) = self.0.resize(process, replicas)?;
        self.0.dismiss(&surplus).await;
        self.0.settled(&added).await
    }

    /// Ends everything: those that nobody comes after first, the others when these are gone. Each
    /// process group gets SIGTERM, and SIGKILL when the
    /// [`stop_grace`](crate::Process::stop_grace) of its process is over. Returns when everything
    /// has ended and the sink has taken the last line.
    ///
    /// A second call while the first is at work means *now*: everything gets SIGKILL. Dropping the
    /// future does not stop the shutdown.
    pub async fn shutdown(&self) {
        if self.0.lock().close() {
            tokio::spawn(Arc::clone(&self.0).end_all());
        } else {
            self.0.context.hurry.cancel();
        }
        self.0.ended.cancelled().await;
    }
}
