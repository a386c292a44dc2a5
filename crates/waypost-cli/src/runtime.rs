//! Runs the asynchronous commands: sets up logging and the Tokio runtime.

use std::io::IsTerminal;
use std::sync::OnceLock;

use clap::{ArgAction, Args};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::fmt::format::debug_fn;

use crate::error::CommandResult;
use crate::style::allows_colours;
use crate::terminal::escaped;

/// How much is logged to stderr.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct Verbosity {
    /// Log errors only
    #[arg(
        short,
        long,
        global = true,
        conflicts_with = "verbose",
        help_heading = "Logging"
    )]
    quiet: bool,
    /// Log more to stderr; -vv and -vvv for still more. RUST_LOG chooses by module
    #[arg(short, long, global = true, action = ArgAction::Count, help_heading = "Logging")]
    verbose: u8,
}

impl Verbosity {
    /// The filter for a command whose default level is `level`. `None` if no option was given.
    fn filter(self, level: Level) -> Option<String> {
        const LEVELS: [&str; 4] = ["warn", "info", "debug", "trace"];
        if self.quiet {
            return Some("error".to_owned());
        }
        if self.verbose == 0 {
            return None;
        }
        let wanted = level as usize + usize::from(self.verbose);
        let level = LEVELS[wanted.min(LEVELS.len() - 1)];
        // The HTTP and TLS libraries log each frame.
        Some(format!(
            "{level},h2=info,hyper=info,hyper_util=info,reqwest=info,rustls=info"
        ))
    }
}

/// The default log level of a command.
#[derive(Clone, Copy)]
enum Level {
    Warn,
    Info,
}

static VERBOSITY: OnceLock<Verbosity> = OnceLock::new();

/// Sets how much the commands log. Only the first call has an effect.
pub(crate) fn set_verbosity(verbosity: Verbosity) {
    let _ = VERBOSITY.set(verbosity);
}

/// The log filter of a command that prints its error: leaves out events that repeat the error.
const QUERY_FILTER: &str = "warn,waypost_core::supervision=error,waypost::registrar=error";

/// Runs a command that makes a few requests and exits. One thread is enough.
pub(crate) fn run_query(command: impl Future<Output = CommandResult>) -> CommandResult {
    log_to_stderr(Level::Warn, QUERY_FILTER);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(command)
}

/// Runs a command that serves until it is stopped, on one thread per core.
pub(crate) fn run_server(command: impl Future<Output = CommandResult>) -> CommandResult {
    log_to_stderr(Level::Info, "info");
    raise_file_limit();
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?
        .block_on(command)
}

/// Like [`run_server`], for a command that shows the output of other programs: logs only warnings.
pub(crate) fn run_stack(command: impl Future<Output = CommandResult>) -> CommandResult {
    log_to_stderr(Level::Warn, QUERY_FILTER);
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

/// The function that changes the filter. Not set if the user has chosen a filter.
static SET_FILTER: OnceLock<SetFilter> = OnceLock::new();

/// Logs to stderr, with this filter unless the command line or `RUST_LOG` sets another one.
fn log_to_stderr(level: Level, filter: &str) {
    let verbosity = VERBOSITY.get().copied().unwrap_or_default();
    let chosen = match verbosity.filter(level) {
        Some(filter) => Ok(EnvFilter::new(filter)),
        None => EnvFilter::try_from_default_env(),
    };
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
        .with_ansi(is_terminal && allows_colours())
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

/// Raises the soft limit of open files to the hard limit. Many systems set the soft limit to 1,024 for
/// programs that use `select`; a server with that limit would soon refuse connections.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};

    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files can't be raised");
    }
}
