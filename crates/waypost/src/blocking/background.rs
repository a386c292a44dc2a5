//! The background thread that runs a blocking client's watches and heartbeats.

use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::{fmt, io, thread};

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;
use waypost_core::{ConfigError, Error};

/// A Tokio runtime on a separate thread, which ends when this is dropped.
pub(super) struct Background {
    runtime: Handle,
    /// Dropping it stops the runtime.
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Background {
    pub(super) fn start() -> Result<Arc<Self>, Error> {
        ensure_outside_runtime()?;
        let failed = |cause: io::Error| ConfigError::new("background thread", cause);
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(failed)?;
        let (stop, stopped) = oneshot::channel();
        let handle = runtime.handle().clone();
        // The runtime is dropped on this thread: dropping one within another runtime panics.
        let run = move || {
            // Always an error: nothing is sent, the sender is dropped.
            let _ = runtime.block_on(stopped);
        };
        let thread = thread::Builder::new().name("waypost".into()).spawn(run);
        Ok(Arc::new(Self {
            runtime: handle,
            stop: Some(stop),
            thread: Some(thread.map_err(failed)?),
        }))
    }

    /// Runs a future on the calling thread; tasks that it spawns run in the background.
    pub(super) fn block_on<F: Future>(&self, future: F) -> Result<F::Output, Error> {
        ensure_outside_runtime()?;
        Ok(self.runtime.block_on(future))
    }

    /// Calls a function that spawns tasks, which run in the background.
    pub(super) fn enter<T>(&self, spawn: impl FnOnce() -> T) -> Result<T, Error> {
        ensure_outside_runtime()?;
        let _entered = self.runtime.enter();
        Ok(spawn())
    }

    /// Runs a future in the background and waits for it. Unlike [`block_on`](Self::block_on) it may be
    /// called within a runtime, for `Drop`. `None` if the future panicked.
    pub(super) fn run_to_end<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let (sender, result) = mpsc::channel();
        self.runtime.spawn(async move {
            // The receiver below can't be gone.
            let _ = sender.send(future.await);
        });
        result.recv().ok()
    }
}

fn ensure_outside_runtime() -> Result<(), Error> {
    if Handle::try_current().is_ok() {
        return Err(Error::WithinRuntime);
    }
    Ok(())
}

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.stop.take());
        let Some(thread) = self.thread.take() else {
            return;
        };
        // The last owner may be a task on the thread itself, which can't join itself.
        if thread.thread().id() != thread::current().id() {
            // A panic on that thread was already reported by its panic hook.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Background")
    }
}
