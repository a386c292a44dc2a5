use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::{fmt, io, thread};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use waypost_core::{ConfigError, Error};

/// A thread on which all that must go on runs, between calls too.
pub(super) struct Background {
    runtime: Handle,
    /// Dropped to end it.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    pub(super) fn start() -> Result<Arc<Self>, Error> {
        refuse_within_runtime()?;
        let failed = |cause: io::Error| ConfigError::new("background thread", cause);
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let (stop, stopped) = oneshot::channel();
        let handle = runtime.handle().clone();
        // The runtime ends on its own thread: it must not be dropped on one of another runtime.
        let run = move || {
            // An error is what is waited for: the sender is gone.
            let _ = runtime.block_on(stopped);
        };
        let thread = thread::Builder::new().name("waypost".into()).spawn(run);
        Ok(Arc::new(Self {
            runtime: handle,
            stop: Some(stop),
            thread: Some(thread.map_err(failed)?),
        }))
    }

    /// Waits for a future, which may leave work behind on the thread.
    pub(super) fn run<F: Future>(&self, future: F) -> Result<F::Output, Error> {
        refuse_within_runtime()?;
        Ok(self.runtime.block_on(future))
    }

    /// Calls a function that begins work on the thread.
    pub(super) fn within<T>(&self, begin: impl FnOnce() -> T) -> Result<T, Error> {
        refuse_within_runtime()?;
        let _entered = self.runtime.enter();
        Ok(begin())
    }

    /// Waits for a task within a runtime, too: for what has to end before a thread goes on.
    /// `None` if it panicked.
    pub(super) fn finish<T: Send + 'static>(
        &self,
        task: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (done, ended) = mpsc::channel();
        self.runtime.spawn(async move {
            // Its end is always waited for.
            let _ = done.send(task.await);
        });
        ended.recv().ok()
    }
}

fn refuse_within_runtime() -> Result<(), Error> {
    match Handle::try_current() {
        Ok(_) => Err(Error::WithinRuntime),
        Err(_) => Ok(()),
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.stop.take());
        let Some(thread) = self.thread.take() else {
            return;
        };
        // The last one who used it may be the thread itself, which can't wait for its own end.
        if thread.thread().id() != thread::current().id() {
            // A panic there was reported there.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Background")
    }
}
