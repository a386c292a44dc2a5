//! Runs the asynchronous commands: sets up logging and the Tokio runtime.

use std::io::IsTerminal;
use std::sync::OnceLock;

use clap::{ArgAction, Args};
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::debug_fn;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

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
        Some(filter) => Some(targets(&filter)),
        None => std::env::var("RUST_LOG")
            .ok()
            .and_then(|it| chosen_targets(&it)),
    };
    let is_chosen = chosen.is_some();
    let (filter, handle) = reload::Layer::new(chosen.unwrap_or_else(|| targets(filter)));
    let is_terminal = std::io::stderr().is_terminal();
    // A field may hold text from outside, such as the message of a registry.
    let fields = debug_fn(|writer, field, value| {
        let value = format!("{value:?}");
        match field.name() {
            "message" => write!(writer, "{}", escaped(&value)),
            name => write!(writer, "{name}={}", escaped(&value)),
        }
    });
    let lines = tracing_subscriber::fmt::layer()
        .fmt_fields(fields.delimited(" "))
        .with_writer(std::io::stderr)
        // An internal error means that stderr can't be written, so it can't be printed there.
        .log_internal_errors(false)
        .with_ansi(is_terminal && allows_colours())
        .with_target(false);
    if !is_chosen {
        let set_filter = move |filter: &str| {
            // This fails only if the subscriber is gone.
            let _ = handle.reload(targets(filter));
        };
        let _ = SET_FILTER.set(Box::new(set_filter));
    }
    // This fails only if a subscriber is installed already; that one is kept.
    let _ = tracing_subscriber::registry()
        .with(filter)
        .with(lines)
        .try_init();
}

/// The filter in `RUST_LOG`, unless it is empty or invalid.
fn chosen_targets(variable: &str) -> Option<Targets> {
    let filter = Some(variable.trim()).filter(|it| !it.is_empty());
    filter?.parse().ok()
}

/// One of the filters in this file, which are all valid.
fn targets(filter: &str) -> Targets {
    filter.parse().unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_of_the_commands_are_valid() {
        for filter in [QUERY_FILTER, "warn", "info"] {
            assert!(filter.parse::<Targets>().is_ok(), "{filter}");
        }
        for (quiet, verbose) in [(true, 0), (false, 1), (false, 2), (false, 9)] {
            let filter = Verbosity { quiet, verbose }.filter(Level::Info).unwrap();
            assert!(filter.parse::<Targets>().is_ok(), "{filter}");
        }
    }

    #[test]
    fn each_v_is_one_level_more_than_the_default_of_the_command() {
        for (default, quiet, verbose, expected) in [
            (Level::Warn, false, 0, None),
            (Level::Warn, true, 0, Some("error")),
            (Level::Warn, false, 1, Some("info")),
            (Level::Warn, false, 3, Some("trace")),
            (Level::Info, false, 0, None),
            (Level::Info, false, 1, Some("debug")),
            (Level::Info, false, 2, Some("trace")),
            (Level::Info, false, 9, Some("trace")),
        ] {
            let filter = Verbosity { quiet, verbose }.filter(default);
            let level = filter
                .as_deref()
                .and_then(|filter| filter.split(',').next());
            assert_eq!(level, expected, "{verbose}");
        }
        let filter = targets(
            &Verbosity {
                quiet: false,
                verbose: 3,
            }
            .filter(Level::Info)
            .unwrap(),
        );
        assert!(filter.would_enable("waypost::registrar", &tracing::Level::TRACE));
        assert!(!filter.would_enable("hyper::proto", &tracing::Level::DEBUG));
    }

    #[test]
    fn a_variable_that_is_empty_or_invalid_chooses_no_filter() {
        for (variable, is_chosen) in [("", false), (" ", false), ("a=b=c", false), ("debug", true)]
        {
            assert_eq!(
                chosen_targets(variable).is_some(),
                is_chosen,
                "{variable:?}"
            );
        }
    }

    #[test]
    fn a_query_logs_warnings_except_for_those_that_repeat_its_error() {
        let filter = targets(QUERY_FILTER);
        let logs = |target, level| filter.would_enable(target, &level);
        assert!(logs("waypost::directory", tracing::Level::WARN));
        assert!(!logs("waypost::directory", tracing::Level::INFO));
        assert!(!logs(
            "waypost_core::supervision::outage_log",
            tracing::Level::WARN
        ));
        assert!(!logs("waypost::registrar::reconcile", tracing::Level::WARN));
        assert!(logs("waypost::registrar::reconcile", tracing::Level::ERROR));
    }
}
