//! Runs the asynchronous commands: sets up logging and the Tokio runtime.

use std::io::IsTerminal;
use std::sync::OnceLock;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::debug_fn;

use crate::error::CommandResult;
use crate::terminal::escaped;

/// The log filter of a command that ends with an error: nothing that the error repeats.
const QUERY_FILTER: &str = "warn,waypost_core::supervision=error,waypost::registrar=error";

/// Runs a command that makes a few requests and exits. One thread is enough.
pub(crate) fn run_query(command: impl Future<Output = CommandResult>) -> CommandResult {
    log_to_stderr(QUERY_FILTER);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(command)
}

/// Runs a command that serves until it is stopped, on one thread per core.
pub(crate) fn run_server(command: impl Future<Output = CommandResult>) -> CommandResult {
    log_to_stderr("info");
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(command)
}

/// Enables the logging of outages, for a command started by [`run_query`] that runs until it is stopped.
pub(crate) fn log_outages() {
    if let Some(set_filter) = SET_FILTER.get() {
        set_filter("warn");
    }
}

type SetFilter = Box<dyn Fn(&str) + Send + Sync>;

/// Changes the filter. Not set if `RUST_LOG` is.
static SET_FILTER: OnceLock<SetFilter> = OnceLock::new();

/// Logs to stderr with `filter`, or with `RUST_LOG` if that is set.
fn log_to_stderr(filter: &str) {
    let chosen = EnvFilter::try_from_default_env();
    let is_chosen = chosen.is_ok();
    let is_terminal = std::io::stderr().is_terminal();
    // A field may hold text from outside, such as the message of a registry.
    let fields = debug_fn(|writer, field, value| {
        let value = format!("{value:?}");
        match field.name() {
            "message" => write!(writer, "{}", escaped(&value)),
            name => write!(writer, "{name}={}", escaped(&value)),
        }
    });
    let builder = tracing_subscriber::fmt()
        .with_env_filter(chosen.unwrap_or_else(|_| EnvFilter::new(filter)))
        .fmt_fields(fields.delimited(" "))
        .with_writer(std::io::stderr)
        // An internal error means that stderr can't be written, so it can't be printed there.
        .log_internal_errors(false)
        .with_ansi(is_terminal && std::env::var_os("NO_COLOR").is_none())
        .with_target(false)
        .with_filter_reloading();
    if !is_chosen {
        let handle = builder.reload_handle();
        let set_filter = move |filter: &str| {
            // This fails only if the subscriber is gone.
            let _ = handle.reload(EnvFilter::new(filter));
        };
        let _ = SET_FILTER.set(Box::new(set_filter));
    }
    // This fails only if a subscriber is installed already; that one is kept.
    let _ = builder.try_init();
}
