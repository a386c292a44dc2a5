//! The Tokio runtime of this process, and functions that let Python wait for its tasks.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::AbortHandle;

use crate::log;

/// How often a waiting main thread checks for signals such as Ctrl-C.
const SIGNAL_INTERVAL: Duration = Duration::from_millis(50);

/// How long the program waits at its end for functions of the application that still run.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(1);

/// The number of functions of the application that can run concurrently.
const BLOCKING_THREADS: usize = 16;

/// The number of forks between the process that imported the module and this one. Threads don't survive
/// a fork, so tasks of an earlier generation no longer run.
static GENERATION: AtomicU64 = AtomicU64::new(0);

static RUNTIME: Mutex<Option<Runtime>> = Mutex::new(None);

/// The current generation; see [`GENERATION`].
#[inline]
pub(crate) fn generation() -> u64 {
    GENERATION.load(Ordering::Relaxed)
}

fn runtime() -> MutexGuard<'static, Option<Runtime>> {
    RUNTIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The runtime of this process; starts it if there is none.
pub(crate) fn handle(_: Python<'_>) -> PyResult<Handle> {
    let mut runtime = runtime();
    if let Some(runtime) = &*runtime {
        return Ok(runtime.handle().clone());
    }
    log::start();
    let started = Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(BLOCKING_THREADS)
        .thread_name("waypost")
        .enable_all()
        .build()
        .map_err(|error| PyRuntimeError::new_err(format!("can't start threads: {error}")))?;
    let handle = started.handle().clone();
    *runtime = Some(started);
    Ok(handle)
}

/// Forgets the threads of the parent process. Called in the child after a fork.
#[pyfunction]
pub(crate) fn after_fork_in_child() {
    GENERATION.fetch_add(1, Ordering::Relaxed);
    // Dropping it would wait for threads that don't exist here.
    mem::forget(runtime().take());
    log::forget();
}

/// Ends all threads, so that none of them needs an interpreter that is ending.
#[pyfunction]
pub(crate) fn shutdown(py: Python<'_>) {
    let runtime = runtime().take();
    py.detach(|| {
        if let Some(runtime) = runtime {
            runtime.shutdown_timeout(SHUTDOWN_LIMIT);
        }
        log::stop();
    });
}

/// Calls a function that spawns tasks, without the GIL.
pub(crate) fn enter<T: Send>(py: Python<'_>, spawn: impl FnOnce() -> T + Send) -> PyResult<T> {
    let handle = handle(py)?;
    Ok(py.detach(|| {
        let _entered = handle.enter();
        spawn()
    }))
}

/// Waits for a future without the GIL. Ctrl-C interrupts it.
pub(crate) fn wait<T: Send + 'static>(
    py: Python<'_>,
    future: impl Future<Output = T> + Send + 'static,
) -> PyResult<T> {
    let handle = handle(py)?;
    let mut future: Pin<Box<dyn Future<Output = T> + Send>> = Box::pin(future);
    let step = py.detach(move || {
        let _entered = handle.enter();
        // Usually the result is ready at once, so no other thread is needed.
        let mut context = Context::from_waker(Waker::noop());
        if let Poll::Ready(result) = future.as_mut().poll(&mut context) {
            return Step::Ready(result);
        }
        let (sender, receiver) = sync_channel(1);
        let task = handle.spawn(async move {
            // Fails if a signal has interrupted the wait.
            let _ = sender.send(future.await);
        });
        Step::Waiting(receiver, task.abort_handle())
    });
    let (mut receiver, task) = match step {
        Step::Ready(result) => return Ok(result),
        Step::Waiting(receiver, task) => (receiver, task),
    };
    loop {
        // The receiver goes to the closure and back, because it can't be shared.
        let result;
        (receiver, result) = py.detach(move || {
            let result = receiver.recv_timeout(SIGNAL_INTERVAL);
            (receiver, result)
        });
        match result {
            Ok(result) => return Ok(result),
            Err(RecvTimeoutError::Timeout) => py.check_signals().inspect_err(|_| task.abort())?,
            Err(RecvTimeoutError::Disconnected) => {
                return Err(PyRuntimeError::new_err(
                    "the program is ending; waypost has stopped",
                ));
            }
        }
    }
}

enum Step<T> {
    Ready(T),
    Waiting(Receiver<T>, AbortHandle),
}

/// An `asyncio.Future` for the result of a Rust future. Cancelling it drops the Rust future.
pub(crate) fn into_asyncio<'py, T: Send + 'static>(
    py: Python<'py>,
    future: impl Future<Output = T> + Send + 'static,
    convert: impl FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
) -> PyResult<Bound<'py, PyAny>> {
    static GET_RUNNING_LOOP: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let event_loop = GET_RUNNING_LOOP
        .import(py, "asyncio", "get_running_loop")?
        .call0()?;
    let awaited = event_loop.call_method0("create_future")?;
    let handle = handle(py)?;
    let (event_loop, unbound) = (event_loop.unbind(), awaited.clone().unbind());
    let task = py.detach(|| {
        handle.spawn(async move {
            let result = future.await;
            Python::try_attach(|py| {
                let result = convert(py, result);
                // Fails only if the loop was closed meanwhile; then no task waits for the result.
                let _ = resolve_in_loop(py, &event_loop, unbound, result);
            });
        })
    });
    awaited.call_method1("add_done_callback", (Abort(task.abort_handle()),))?;
    Ok(awaited)
}

fn resolve_in_loop(
    py: Python<'_>,
    event_loop: &Py<PyAny>,
    future: Py<PyAny>,
    result: PyResult<Py<PyAny>>,
) -> PyResult<()> {
    let (value, error) = match result {
        Ok(value) => (value, py.None()),
        Err(error) => (py.None(), error.into_value(py).into_any()),
    };
    let event_loop = event_loop.bind(py);
    event_loop.call_method1("call_soon_threadsafe", (Resolve, future, value, error))?;
    Ok(())
}

/// Sets the result of an `asyncio.Future`, unless it was cancelled.
#[pyclass(frozen)]
struct Resolve;

#[pymethods]
impl Resolve {
    #[allow(clippy::unused_self)]
    fn __call__(
        &self,
        future: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
        error: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        if future.call_method0("done")?.is_truthy()? {
            return Ok(());
        }
        if error.is_none() {
            future.call_method1("set_result", (value,))?;
        } else {
            future.call_method1("set_exception", (error,))?;
        }
        Ok(())
    }
}

/// Aborts a task when its `asyncio.Future` is done. Has no effect if the task is done too.
#[pyclass(frozen)]
struct Abort(AbortHandle);

#[pymethods]
impl Abort {
    fn __call__(&self, _future: &Bound<'_, PyAny>) {
        self.0.abort();
    }
}
